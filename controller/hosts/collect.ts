import { logTailBytes } from '../api/cijob-status.ts';
import type { GuestFile } from '../incus/client.ts';
import { logPath, resultPath, type Command } from '../incus/commands.ts';
import { IncusError, isTooSlow } from '../incus/errors.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import { noArchive } from './artifact-report.ts';
import { logSourceOf } from './live-logs.ts';
import type { Ground } from './perform.ts';
import { whyNotStarted } from './start-failure.ts';

const noPlace = noArchive(
  'NoPlace',
  'there is no place to keep them: give the controller --log-dir, or `cijob run` --artifacts',
);

/** A result is some hundred bytes; one larger than this is none. */
const maxResultBytes = 64 * 1024;
/** How long one collect may take, in milliseconds: the longest read of a file, and the requests before it. */
export const collectLimit = 6 * 60_000;

type Parts = Pick<Ground, 'client' | 'clock' | 'turns' | 'inventory' | 'host' | 'logs' | 'artifacts'>;

/**
 * Reads what a guest left. A result that was read stands: what the guest keeps back of its log and its artifacts, and
 * what there was no time for, is noted in `missed`.
 *
 * @param signal ends it early, with what was read so far
 * @throws IncusError when the result was not read, or when another try may bring more
 */
export async function collect(
  {
    instance,
    logBytes = logTailBytes,
    artifacts: globs,
    withinMs,
    resultOnly = false,
  }: Extract<Command, { verb: 'collect' }>,
  { client, clock, turns, inventory, host, logs, artifacts: keeper }: Parts,
  signal?: AbortSignal,
): Promise<CommandOutcome> {
  const reads = new Reads(resultOnly, signal);
  const { over } = reads;
  const cancel = clock.after(withinMs ?? collectLimit, () => reads.stop());
  const view = inventory.get(instance);
  const source = logSourceOf(view);
  // Somebody who reads the log at their own pace is waited for, unless the job is called off.
  const logOver = withinMs === undefined && logs?.patient ? reads.useless : over;
  const rest = source && logs?.finish(host, client, source, logOver);
  const archive =
    source && globs.length > 0
      ? (keeper?.collect(turns.archives, client, source, globs, over) ?? Promise.resolve(noPlace))
      : undefined;
  const [result, log, , artifacts, startErrors] = await Promise.all([
    reads.must(client.readFile(instance, resultPath, { first: maxResultBytes }, over)),
    reads.may('the end of the log', client.readFile(instance, logPath, { last: logBytes }, over)),
    reads.may('the log', rest, logOver),
    reads.may('the artifacts', archive),
    view?.status === 'Stopped' ? whyNotStarted(client, view) : undefined,
  ]);
  cancel();
  if (reads.failure || !result) throw reads.failure ?? outOfTime();
  const missed = reads.missed.join('; ') || undefined;
  return { kind: 'collected', collected: { result, log: log ?? noFile, artifacts, missed, startErrors } };
}

const noFile: GuestFile = { kind: 'missing' };

/**
 * The reads of one try. Where one fails that another try may bring, it ends the others: nothing of this try goes on
 * beside the next.
 */
class Reads {
  /** Aborted when there is no more time, or when nothing that is still read is of use. */
  readonly over: AbortSignal;
  /** Aborted when another try is needed, or when this one is called back. */
  readonly useless: AbortSignal;
  /** What could not be read, and need not be. */
  readonly missed: string[] = [];
  /** Why another try is needed. */
  failure: Error | undefined;
  readonly #stop = new AbortController();
  readonly #failed = new AbortController();
  readonly #resultOnly: boolean;

  constructor(resultOnly: boolean, signal: AbortSignal | undefined) {
    this.#resultOnly = resultOnly;
    this.useless = AbortSignal.any([this.#failed.signal, ...(signal ? [signal] : [])]);
    this.over = AbortSignal.any([this.#stop.signal, this.useless]);
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Resolves with undefined when the read failed. */
  async must<T>(read: Promise<T>): Promise<T | undefined> {
    try {
      return await read;
    } catch (error) {
      this.#fail(this.#reason(error));
      return undefined;
    }
  }

  /** The same, for a read without which the others are of use if only the guest or the time is to blame. */
  async may<T>(what: string, read: Promise<T> | undefined, over = this.over): Promise<T | undefined> {
    try {
      return await read;
    } catch (error) {
      const reason = this.#reason(error, over);
      if (this.#resultOnly || isTooSlow(reason)) this.missed.push(`${what}: ${reason.message}`);
      else this.#fail(reason);
      return undefined;
    }
  }

  #fail(reason: Error): void {
    this.failure ??= reason;
    this.#failed.abort();
  }

  #reason(error: unknown, over = this.over): Error {
    if (over.aborted) return outOfTime();
    return error instanceof Error ? error : new IncusError('Unknown', String(error));
  }
}

function outOfTime(): IncusError {
  return new IncusError('TooSlow', 'there was no time left to read it');
}
