import type { Clock } from '../clock.ts';
import type { IncusClient } from '../incus/client.ts';
import { artifactsPath } from '../incus/commands.ts';
import type { FairQueue } from '../incus/fair-queue.ts';
import type { ArchiveSummary } from '../incus/outcome.ts';
import { isTooSlow } from '../incus/errors.ts';
import { printableLine } from '../printable.ts';
import { addFile, endOfArchive, type ArchiveDraft } from './archive.ts';
import { foldedPath } from './artifact-names.ts';
import { ArtifactReport, noArchive, type Cause } from './artifact-report.ts';
import { walkArtifacts, type FoundFile } from './artifact-walk.ts';
import type { LogSource } from './live-logs.ts';

/** Where archives go. */
export interface ArchiveSink {
  /** Begins an archive that will end with `end`. Undefined: it cannot be kept. */
  begin(source: LogSource, end: Buffer): Promise<ArchiveDraft | undefined>;
}

/** What a guest is read by. */
export type ArtifactReader = Pick<IncusClient, 'stat' | 'list' | 'openRange'>;

/** How much goes into one archive at most. */
export interface ArchiveLimits {
  files: number;
  /** Bytes of all files together, before they are compressed. */
  contentBytes: number;
}
export const defaultLimits: ArchiveLimits = { files: 2_000, contentBytes: 4 * 2 ** 30 };
/** How long a job may be kept waiting for its artifacts, over all tries, in milliseconds. */
export const timeLimit = 5 * 60_000;
/** So many files beyond the limits are counted, and then no more is looked at. */
const mostCounted = 10_000;
/** Artifacts that cannot be read so often are left: the result matters more. */
const patience = 3;

const tooLate = noArchive('TimeLimit', 'there was no time left to read them');
const notKept = noArchive(
  'NotKept',
  'the archive could not be written: its disk is full, too small or broken',
);

/** What is remembered of an instance until it is deleted. */
interface Effort {
  failures: number;
  /** When its time is up, in milliseconds since the epoch. */
  endsAt: number;
}

/**
 * Keeps what jobs leave in `/artifacts`. Whatever goes wrong with that costs artifacts, never the outcome of a job, nor
 * more than so much time.
 */
export class Artifacts {
  readonly #sink: ArchiveSink;
  readonly #clock: Clock;
  readonly #limits: ArchiveLimits;
  readonly #efforts = new Map<string, Effort>();

  constructor(sink: ArchiveSink, clock: Clock, limits: ArchiveLimits = defaultLimits) {
    this.#limits = limits;
    this.#sink = sink;
    this.#clock = clock;
  }

  /**
   * Makes the archive of the files that the globs match, now that nobody writes them any more. Returns what is in it, and
   * notes of all that is not. Rejects when it is worth another try.
   *
   * @param turns lets as many archives be made at once as the connection to the guest's host carries
   * @param signal ends it early: the archive then has what there was time for
   */
  async collect(
    turns: FairQueue,
    guest: ArtifactReader,
    source: LogSource,
    globs: readonly string[],
    signal?: AbortSignal,
  ): Promise<ArchiveSummary> {
    const { instance, namespace } = source;
    const now = this.#clock.now();
    const effort = this.#efforts.get(instance) ?? { failures: 0, endsAt: now + timeLimit };
    this.#efforts.set(instance, effort);
    const overtime = new AbortController();
    const cancel = this.#clock.after(effort.endsAt - now, () => overtime.abort());
    const over = AbortSignal.any([overtime.signal, ...(signal ? [signal] : [])]);
    // What was begun is brought to an end: the archive then has what there was time for.
    const work = () => this.#archive(guest, source, globs, over);
    try {
      return await turns.add({ group: namespace, member: instance, long: true }, work, over);
    } catch (error) {
      effort.failures += 1;
      if (over.aborted) return tooLate;
      if (effort.failures < patience) throw error;
      const why = error instanceof Error ? error.message : String(error);
      return noArchive('NotRead', `the guest's files could not be read: ${printableLine(why).slice(0, 512)}`);
    } finally {
      cancel();
    }
  }

  /** Forgets an instance. */
  forget(instance: string): void {
    this.#efforts.delete(instance);
  }

  async #archive(
    guest: ArtifactReader,
    source: LogSource,
    globs: readonly string[],
    signal: AbortSignal,
  ): Promise<ArchiveSummary> {
    const draft = await this.#sink.begin(source, endOfArchive);
    if (!draft) return notKept;
    try {
      const { instance } = source;
      const report = new ArtifactReport(globs);
      const making = { draft, guest, instance, report, signal, limits: this.#limits, now: this.#clock.now() };
      const filling = new Filling(making);
      try {
        await filling.fill(globs);
      } catch (error) {
        if (signal.aborted) report.stop('TimeLimit');
        else if (isTooSlow(error)) report.stop('SlowGuest');
        else throw error;
      }
      const bytes = await draft.publish();
      return bytes === undefined ? notKept : report.summary(filling.files, bytes);
    } finally {
      await draft.discard();
    }
  }
}

/** An archive that is being made. */
interface Making {
  draft: ArchiveDraft;
  guest: ArtifactReader;
  instance: string;
  limits: ArchiveLimits;
  report: ArtifactReport;
  signal: AbortSignal;
  /** No file can have been changed later, whatever the guest says. */
  now: number;
}

/** Puts what is found into the archive, as far as its limits allow. Counts the files from the first on. */
class Filling {
  readonly #making: Making;
  readonly #folded = new Set<string>();
  #content = 0;
  #full: Cause | undefined;
  files = 0;

  constructor(making: Making) {
    this.#making = making;
  }

  async fill(globs: readonly string[]): Promise<void> {
    const { guest, instance, report, signal } = this.#making;
    for await (const found of walkArtifacts(guest, instance, globs, report, signal)) {
      const limit = this.#limit(found) ?? (await this.#add(found));
      if (limit) report.leave(limit, found.path);
      if (report.beyondLimits < mostCounted) continue;
      report.stop('CountLimit');
      return;
    }
  }

  /** The limit that keeps a file out. */
  #limit({ size }: FoundFile): Cause | undefined {
    const { files, contentBytes } = this.#making.limits;
    if (this.#full) return this.#full;
    if (this.files >= files) return 'FileLimit';
    return this.#content + size > contentBytes ? 'SizeLimit' : undefined;
  }

  /** Adds one file. Returns why it could not. */
  async #add(found: FoundFile): Promise<Cause | undefined> {
    const added = await addFound(this.#making, found);
    this.#content += found.size;
    if (added === 'full') this.#full = 'ArchiveFull';
    if (added === 'slow') return 'SlowFile';
    if (added !== 'added') return this.#full ?? 'Changed';
    this.files += 1;
    const folded = foldedPath(found.path);
    if (this.#folded.has(folded)) this.#making.report.alike(found.path);
    this.#folded.add(folded);
    return undefined;
  }
}

/** Adds one file as it is now. One that keeps changing under our hands is left out. */
async function addFound(
  { draft, guest, instance, signal, now }: Making,
  found: FoundFile,
): Promise<'added' | 'full' | 'left' | 'slow'> {
  const path = `${artifactsPath}/${found.path}`;
  const modifiedAt = Math.min(Math.max(found.modifiedAt ?? now, 0), now);
  let { size } = found;
  for (let tries = 1; ; tries += 1) {
    const content = await guest.openRange(instance, path, 0, size, signal);
    // Smaller than when it was found, as the answer tells before its first byte.
    const length = Number(content?.headers['content-length']);
    if (!content || !(length > 0)) {
      content?.destroy();
      return 'left';
    }
    try {
      const file = { path: found.path, size: length, modifiedAt };
      return (await addFile(draft, file, content)) ? 'added' : 'full';
    } catch (error) {
      if (signal.aborted) throw error;
      if (isTooSlow(error)) return 'slow';
      // If Incus does not answer this either, it was the connection.
      const current = await guest.stat(instance, path, signal);
      if (tries === 2 || current?.type !== 'file' || current.size === 0 || current.size > size) return 'left';
      ({ size } = current);
    } finally {
      content.destroy();
    }
  }
}
