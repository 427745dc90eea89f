import type { CiJobStatus } from '../api/cijob-status.ts';
import { systemClock } from '../clock.ts';
import { Artifacts } from '../hosts/artifacts.ts';
import { LiveLogs, passOn } from '../hosts/live-logs.ts';
import { commandLines } from '../incus/commands.ts';
import { printable } from '../printable.ts';
import { keyOf } from '../reconcile/names.ts';
import { isFinished } from '../reconcile/step.ts';
import { exitCodeOf, exitCodes, phaseLine } from '../standalone/progress.ts';
import { startTraces } from '../telemetry/traces.ts';
import { programVersion } from '../version.ts';
import { failedEnds } from './failed-ends.ts';
import { readInput } from './input.ts';
import { JobLines, type LogPrinter } from './job-lines.ts';
import { JobTraces } from './job-traces.ts';
import { savedArchives } from './saved-archives.ts';
import { Standalone } from './standalone.ts';

export interface RunOptions {
  file: string[];
  host: string[];
  identity?: string;
  output: 'text' | 'json';
  /** Directory for the archives of artifacts. */
  artifacts?: string;
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
    if (!options.quiet) process.stderr.write(`${printable(line)}\n`);
  };
  const finished = new Map<string, CiJobStatus>();
  const { promise: allGone, resolve: everythingGone } = Promise.withResolvers<undefined>();
  const keys = input.jobs.map(({ metadata }) => keyOf(metadata));
  const severalJobs = keys.length > 1;
  const write = (bytes: Buffer | string) => process.stdout.write(bytes);
  const printer: LogPrinter = severalJobs
    ? new JobLines(keys, write, process.stdout.isTTY)
    : { take: (_log, chunk) => write(chunk), end: () => undefined };
  const logs = new LiveLogs(
    passOn((log, chunk) => {
      if (options.output === 'text') printer.take(log, chunk);
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
    say,
    onJob(key) {
      const { store } = standalone;
      const job = store.get(key);
      if (job?.status && isFinished(job)) finished.set(key, job.status);
      if (
        finished.size === input.jobs.length &&
        store.all().every((one) => !one.metadata.finalizers?.length)
      ) {
        everythingGone(undefined);
      }
    },
    observer: {
      status(change) {
        jobTraces?.status(change);
        const { job, before, after } = change;
        const over = after.completionTime !== undefined || (after.attempt ?? 1) > (before?.attempt ?? 1);
        if (over) printer.end(keyOf(job.metadata));
        const line = phaseLine(job, before, after, systemClock.now());
        if (line !== undefined) say(line);
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
  let stopListening: () => void = () => undefined;
  try {
    await standalone.connect();
    const created = input.jobs.map((job) => store.create(job, systemClock.now()));
    for (const job of created) {
      if (jobTraces) say(`${keyOf(job.metadata)}: trace ${jobTraces.fields(job).trace_id}`);
    }
    stopListening = onInterrupt((times) => {
      if (times > 1) process.exit(exitCodes.cancelled);
      say('cancelling; interrupt again to leave at once (the instance then stays behind)');
      for (const key of keys) store.cancel(key);
    });
    await allGone;
    if (severalJobs && options.output === 'text') failedEnds(finished).forEach(say);
    if (options.output === 'json') {
      const jobs = keys.map((key) => store.get(key));
      process.stdout.write(`${JSON.stringify(jobs, null, 2)}\n`);
    }
    const codes = keys.map((key) => exitCodeOf(finished.get(key) ?? {}));
    return codes.find((code) => code !== 0) ?? 0;
  } finally {
    stopListening();
    await standalone.close();
    await traces?.close();
  }
}

function onInterrupt(handle: (times: number) => void): () => void {
  let times = 0;
  const listener = () => {
    times += 1;
    handle(times);
  };
  process.on('SIGINT', listener);
  process.on('SIGTERM', listener);
  return () => {
    process.off('SIGINT', listener);
    process.off('SIGTERM', listener);
  };
}
