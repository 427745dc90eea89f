import { readFile } from 'node:fs/promises';
import type { CiJobStatus } from '../api/cijob.ts';
import { systemClock } from '../clock.ts';
import { LiveLogs } from '../hosts/live-logs.ts';
import { HostPool } from '../hosts/pool.ts';
import { commandLines } from '../incus/commands.ts';
import { Engine } from '../reconcile/engine.ts';
import { keyOf } from '../reconcile/names.ts';
import { defaultPatience } from '../reconcile/observed.ts';
import { isFinished } from '../reconcile/step.ts';
import { MemoryStore } from '../standalone/memory-store.ts';
import { exitCodeOf, exitCodes, phaseLine } from '../standalone/progress.ts';
import { readInput, UsageError, type Input } from './input.ts';

export interface RunOptions {
  file: string[];
  host: string[];
  identity?: string;
  output: 'text' | 'json';
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
    if (!options.quiet) process.stderr.write(`${line}\n`);
  };
  const finished = new Map<string, CiJobStatus>();
  const { promise: allGone, resolve: everythingGone } = Promise.withResolvers<undefined>();
  const store = new MemoryStore((key) => {
    engine.wake(key);
    const job = store.get(key);
    if (job?.status && isFinished(job)) finished.set(key, job.status);
    if (finished.size === input.jobs.length && store.all().every((one) => !one.metadata.finalizers?.length)) {
      everythingGone(undefined);
    }
  });
  const severalJobs = input.jobs.length > 1;
  const logs = new LiveLogs((_instance, chunk) => {
    if (options.output === 'text') process.stdout.write(chunk);
  });
  const pool: HostPool = new HostPool({
    // Nothing but this process looks after its instances, so no other may take them for its own.
    controllerId: `run-${process.pid}-${Date.now().toString(36)}`,
    clock: systemClock,
    readKey: identityReader(options.identity, input),
    ...(severalJobs ? {} : { logs }),
    onAdmitted: (key) => engine.wake(key),
    events: {
      changed(host, instance) {
        if (instance === undefined) {
          const state = pool.state(host);
          if (state?.kind === 'down' && state.reason !== 'Connecting') say(`host ${host}: ${state.message}`);
          for (const key of pool.waitingKeys()) engine.wake(key);
        }
        engine.hostChanged(host, instance, undefined);
      },
      drift: (host, instance, kind) => say(`instance ${instance} on ${host}: ${kind} by somebody else`),
      command: () => undefined,
      eventLag: () => undefined,
      request: () => undefined,
    },
  });
  const engine: Engine = new Engine({
    store,
    hosts: pool,
    clock: systemClock,
    concurrency: 8,
    controllerId: pool.controllerId,
    patience: defaultPatience,
    namespaceLabels: () => ({}),
    onError: (key, error) => say(`${key}: ${error instanceof Error ? error.message : String(error)}`),
    observer: {
      status(job, before, after) {
        const line = phaseLine(job, before, after);
        if (line !== undefined) say(line);
      },
      command(_job, host, command, outcome, milliseconds) {
        if (!options.verbose) return;
        const project = pool.get(host)?.spec.project ?? 'default';
        for (const line of commandLines(command, project)) say(`  $ ${line}`);
        say(`    ${outcome.kind}${'message' in outcome ? `: ${outcome.message}` : ''} (${milliseconds} ms)`);
      },
    },
  });
  for (const host of input.hosts) await pool.put(host);
  for (const secret of input.secrets) {
    store.putSecret(secret.metadata.namespace ?? 'default', secret.metadata.name, secret.data);
  }
  const keys = input.jobs.map((job) => keyOf(store.create(job, systemClock.now()).metadata));
  const stopListening = onInterrupt((times) => {
    if (times > 1) process.exit(exitCodes.cancelled);
    say('cancelling; interrupt again to leave at once (the instance then stays behind)');
    for (const key of keys) store.cancel(key);
  });
  try {
    await allGone;
  } finally {
    stopListening();
    await engine.stop();
    await pool.close();
  }
  if (options.output === 'json') {
    process.stdout.write(
      `${JSON.stringify(
        keys.map((key) => store.get(key)),
        null,
        2,
      )}\n`,
    );
  }
  const codes = keys.map((key) => exitCodeOf(finished.get(key) ?? {}));
  return codes.find((code) => code !== 0) ?? 0;
}

/** Private keys outside a cluster: a file given on the command line, or a Secret among the manifests. */
function identityReader(identity: string | undefined, { secrets }: Input) {
  return async ({ name, key }: { name: string; key: string }): Promise<string> => {
    if (identity !== undefined) return readFile(identity, 'utf8');
    const value = secrets.find((secret) => secret.metadata.name === name)?.data[key];
    if (value === undefined) {
      throw new UsageError(
        `give the private key with --identity FILE, or a Secret ${name} with the key ${key}`,
      );
    }
    return Buffer.from(value, 'base64').toString('utf8');
  };
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
