import type { CiJobStatus } from '../api/cijob-status.ts';
import { sleep, systemClock } from '../clock.ts';
import { Artifacts } from '../hosts/artifacts.ts';
import { LiveLogs, passOn } from '../hosts/live-logs.ts';
import { commandLines } from '../incus/commands.ts';
import { printableJson } from '../printable.ts';
import { keyOf } from '../reconcile/names.ts';
import { isFinished } from '../reconcile/step.ts';
import { leftOutLines, exitCodeOf, exitCodes, phaseLine } from '../standalone/progress.ts';
import { startTraces } from '../telemetry/traces.ts';
import { programVersion } from '../version.ts';
import { takeUp, type Ending } from './ending.ts';
import { failedEnds } from './failed-ends.ts';
import { readInput } from './input.ts';
import { JobLines, type LogPrinter } from './job-lines.ts';
import { JobTraces } from './job-traces.ts';
import { note, out, roomInOutput } from './output.ts';
import { exitCodeFor, programEnd, type EndCause } from './program-end.ts';
import { savedArchives } from './saved-archives.ts';
import { Standalone, type LeftBehind } from './standalone.ts';

export interface RunOptions {
  file: string[];
  host: string[];
  identity?: string;
  output: 'text' | 'json';
  /** Directory for the archives of artifacts. */
  artifacts?: string;
  /** How long a host may be out of reach before its attempts count as lost. */
  hostGraceSeconds: number;
  quiet?: boolean;
  verbose?: boolean;
}

/**
 * `cijob run`: runs CiJobs with the controller's own reconcile code, and no cluster. Logs go to standard output,
 * phases to standard error.
 *
 * @returns the exit code: 0, or that of the first job that did not succeed.
 */
export async function run(options: RunOptions): Promise<number> {
  const input = await readInput([...options.file, ...options.host]);
  const say = (line: string) => {
    if (!options.quiet) note(line);
  };
  input.notes.forEach(say);
  const finished = new Map<string, CiJobStatus>();
  const { promise: allGone, resolve: everythingGone } = Promise.withResolvers<readonly LeftBehind[]>();
  const look = () => {
    const left = finished.size === input.jobs.length ? standalone.leftBehind() : undefined;
    if (left) everythingGone(left);
  };
  const keys = input.jobs.map(({ metadata }) => keyOf(metadata));
  const severalJobs = keys.length > 1;
  const write = (bytes: Buffer | string) => void out(bytes);
  const printer: LogPrinter = severalJobs
    ? new JobLines(keys, write, process.stdout.isTTY)
    : { take: (_log, chunk) => write(chunk), end: () => undefined };
  const logs = new LiveLogs(
    passOn(async (log, chunk) => {
      if (options.output !== 'text') return;
      printer.take(log, chunk);
      await roomInOutput();
    }),
  );
  const traces = await startTraces({
    clock: systemClock,
    version: programVersion,
    onDropped: () => undefined,
    onTrouble: say,
  });
  const jobTraces =
    traces &&
    new JobTraces({
      traces,
      addressOf: (host) => standalone.pool.get(host)?.spec.connection.ssh?.address,
    });
  const standalone: Standalone = new Standalone({
    input,
    identity: options.identity,
    logs,
    ...(options.artifacts === undefined
      ? {}
      : { artifacts: new Artifacts(savedArchives(options.artifacts, keys, say), systemClock) }),
    say: note,
    hostGrace: options.hostGraceSeconds * 1000,
    onHostLost: look,
    onJob(key) {
      const { store } = standalone;
      const job = store.get(key);
      if (job?.status && isFinished(job)) finished.set(key, job.status);
      look();
    },
    observer: {
      status(change) {
        jobTraces?.status(change);
        const { job, before, after } = change;
        const over = after.completionTime !== undefined || (after.attempt ?? 1) > (before?.attempt ?? 1);
        if (over) printer.end(keyOf(job.metadata));
        const line = phaseLine(job, before, after, systemClock.now());
        if (line !== undefined) say(line);
        leftOutLines(job, before, after).forEach(say);
      },
      command(end) {
        jobTraces?.command(end, systemClock.now());
        if (!options.verbose) return;
        const { host, command, outcome, milliseconds } = end;
        const project = standalone.pool.get(host)?.spec.project ?? 'default';
        for (const line of commandLines(command, project)) say(`  $ ${line}`);
        say(`    ${outcome.kind}${'message' in outcome ? `: ${outcome.message}` : ''} (${milliseconds} ms)`);
      },
    },
  });
  const { store } = standalone;
  let ending: Ending | undefined;
  let giveBack: () => void = () => undefined;
  try {
    await standalone.connect();
    const swept = standalone.removeAbandoned();
    const created = input.jobs.map((job) => store.create(job, systemClock.now()));
    for (const job of created) {
      if (jobTraces) say(`${keyOf(job.metadata)}: trace ${jobTraces.fields(job).trace_id}`);
    }
    giveBack = programEnd.takeOver((cause) => {
      const taken = takeUp(ending, cause, systemClock.now());
      ending = taken.ending;
      if (taken.answer === 'leave') {
        note(`leaving at once: instances stay behind; ${howRemoved}`);
        process.exit(exitCodes.cancelled);
      }
      if (taken.answer === 'go on') return;
      say(
        `${whyCancelled(cause)}: cancelling; press Ctrl-C to leave at once (the instance then stays behind)`,
      );
      for (const key of keys) standalone.cancel(key);
    });
    for (const { instance, host } of await allGone) {
      note(`instance ${instance} may be left on host ${host}, which is out of reach; ${howRemoved}`);
    }
    await Promise.race([swept, sleep(systemClock, sweepPatience, programEnd.asked).catch(() => undefined)]);
    const leftover = standalone.leftover();
    if (leftover !== undefined) note(`${leftover}, and is not removed yet; ${howRemoved}`);
    if (severalJobs && options.output === 'text') failedEnds(finished).forEach(say);
    if (options.output === 'json') {
      const jobs = keys.map((key) => store.get(key));
      await out(`${printableJson(jobs, 2)}\n`);
    }
    if (ending?.cause.kind === 'output') return exitCodeFor(ending.cause);
    const codes = keys.map((key) => exitCodeOf(finished.get(key) ?? {}));
    return codes.find((code) => code !== 0) ?? 0;
  } finally {
    giveBack();
    await standalone.close();
    await traces?.close();
  }
}

/** How long the end of a run waits for the removal of what others left behind, in milliseconds. */
const sweepPatience = 30_000;

/** What becomes of an instance that stays behind. */
const howRemoved = 'the next `cijob run` on that host and project removes it';

function whyCancelled(cause: EndCause): string {
  return cause.kind === 'signal' ? cause.signal : `standard output failed (${cause.code})`;
}
