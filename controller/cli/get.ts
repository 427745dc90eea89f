import type { CiJob } from '../api/cijob.ts';
import { findCondition } from '../api/conditions.ts';
import { systemClock } from '../clock.ts';
import { ApiError } from '../kube/api-error.ts';
import { Reflector } from '../kube/reflector.ts';
import { cijobs } from '../kube/resources.ts';
import { keyOf } from '../reconcile/names.ts';
import { printable, printableJson } from '../printable.ts';
import { duration } from '../reconcile/status.ts';
import { getRaw, listAll, withCluster, type Cluster, type ClusterFlags } from './cluster.ts';
import { note, out } from './output.ts';
import { leave, programEnd } from './program-end.ts';
import { age, colourPhase, table } from './table.ts';
import { cutTo } from './width.ts';

export interface GetOptions extends ClusterFlags {
  allNamespaces?: boolean;
  selector?: string;
  watch?: boolean;
  output: 'table' | 'wide' | 'json' | 'name';
}

/** `cijob get [NAME]`: CiJobs as a table, which `--watch` keeps up to date. */
export async function get(name: string | undefined, options: GetOptions): Promise<number> {
  return withCluster(options, async (cluster) => {
    if (options.watch) return watch(cluster, name, options);
    const { client, namespace } = cluster;
    const found =
      name === undefined
        ? await listAll(client, cijobs, queryOf(cluster, options))
        : [await getRaw(client, cijobs, { namespace, name })];
    if (options.output === 'json') {
      const whole =
        name === undefined ? { apiVersion: 'v1', kind: 'List', metadata: {}, items: found } : found[0];
      await print(printableJson(whole, 2));
      return 0;
    }
    const jobs = found.flatMap((one) => cijobs.schema.safeParse(one).data ?? []);
    if (jobs.length === 0 && options.output !== 'name') {
      note(options.allNamespaces ? 'no CiJobs' : `no CiJobs in namespace ${cluster.namespace}`);
      return 0;
    }
    for (const line of linesOf(jobs, options, Date.now())) await print(line);
    return 0;
  });
}

function queryOf({ namespace }: Cluster, { allNamespaces, selector }: GetOptions) {
  return { namespace: allNamespaces ? undefined : namespace, labelSelector: selector };
}

/** The jobs as lines to print: a table with its head, or names. */
export function linesOf(jobs: readonly CiJob[], options: GetOptions, now: number): string[] {
  if (options.output === 'name') return jobs.map((job) => job.metadata.name);
  const rows = jobs.map((job) => row(job, options, now));
  const [head = '', ...lines] = table([headOf(options), ...rows]);
  return [head, ...lines.map((line, index) => colourPhase(line, jobs[index]?.status?.phase ?? 'Pending'))];
}

function headOf({ allNamespaces, output }: GetOptions): string[] {
  return [
    ...(allNamespaces ? ['NAMESPACE'] : []),
    ...['NAME', 'PHASE', 'REASON', 'HOST', 'EXIT', 'RAN', 'AGE'],
    ...(output === 'wide' ? ['INSTANCE', 'ATTEMPT', 'CLASS', 'MESSAGE'] : []),
  ];
}

function row(job: CiJob, { allNamespaces, output }: GetOptions, now: number): string[] {
  const { metadata, status = {} } = job;
  return [
    ...(allNamespaces ? [metadata.namespace ?? ''] : []),
    metadata.name,
    status.phase ?? 'Pending',
    reasonOf(job),
    status.host ?? '',
    status.exitCode === undefined ? '' : String(status.exitCode),
    ranFor(job, now),
    age(metadata.creationTimestamp, now),
    ...(output === 'wide'
      ? [
          status.instance?.name ?? '',
          String(status.attempt ?? 1),
          status.failure?.class ?? '',
          printable(status.failure?.message.split(/\r?\n/)[0] ?? ''),
        ]
      : []),
  ];
}

/** Why a job failed, or what it waits for. */
function reasonOf({ status }: CiJob): string {
  const admitted = findCondition(status?.conditions, 'Admitted');
  const blocked = findCondition(status?.conditions, 'Ready');
  if (status?.failure) return status.failure.reason;
  if (blocked?.status === 'Unknown') return blocked.reason;
  return admitted?.status === 'False' ? admitted.reason : '';
}

/** How long the command has run: by now, if it still does. */
export function ranFor({ status }: CiJob, now: number): string {
  if (status?.duration !== undefined) return status.duration;
  const run = status?.timings?.find(({ phase }) => phase === 'Running');
  return run && status?.completionTime === undefined ? duration(now - Date.parse(run.startedAt)) : '';
}

/** Shows changes until interrupted: on a terminal one table that is drawn anew, elsewhere a line for each. */
async function watch(cluster: Cluster, name: string | undefined, options: GetOptions): Promise<number> {
  const { client } = cluster;
  const live = process.stdout.isTTY && options.output !== 'json' && options.output !== 'name';
  const jobs = new Map<string, CiJob>();
  let synced = false;
  const query = { ...queryOf(cluster, options), ...(name && { fieldSelector: `metadata.name=${name}` }) };
  const failed = Promise.withResolvers<ApiError>();
  const reflector: Reflector<CiJob> = new Reflector({
    client,
    clock: systemClock,
    resource: cijobs,
    query,
    onChange: (key, _before, after) => {
      if (after) jobs.set(key, after);
      else jobs.delete(key);
      if (!synced || live) return;
      if (after) tell(after);
    },
    onError: (error) => {
      // What will not get better by itself.
      if (error instanceof ApiError && [401, 403, 404].includes(error.status)) failed.resolve(error);
    },
  });
  const tell = (job: CiJob) => {
    if (options.output === 'json') void print(printableJson(job));
    else void print(linesOf([job], options, Date.now()).at(-1) ?? '');
  };
  const { promise: interrupted, resolve: interrupt } = Promise.withResolvers<undefined>();
  const giveBack = programEnd.takeOver((cause) => {
    // To be ended so is what it waits for. Whatever else ends it is told by the exit code.
    if (cause.kind === 'signal' && ['SIGINT', 'SIGTERM'].includes(cause.signal)) interrupt(undefined);
    else leave(cause);
  });
  reflector.start();
  const first = await Promise.race([reflector.synced.then(() => undefined), failed.promise, interrupted]);
  if (first) {
    await reflector.stop();
    throw first;
  }
  synced = true;
  if (!live) {
    if (options.output !== 'json' && options.output !== 'name') await print(headOf(options).join('   '));
    for (const job of sorted(jobs)) tell(job);
  }
  if (live) await out('\u001b[2J');
  const redraw = live ? setInterval(() => draw(sorted(jobs), options), 500) : undefined;
  const error = await Promise.race([failed.promise, interrupted]);
  clearInterval(redraw);
  giveBack();
  await reflector.stop();
  if (error) throw error;
  return 0;
}

function sorted(jobs: ReadonlyMap<string, CiJob>): CiJob[] {
  return [...jobs.values()].sort((a, b) => keyOf(a.metadata).localeCompare(keyOf(b.metadata)));
}

/** Draws over what was drawn before, as much as fits; a shorter table leaves nothing of a longer one behind. */
function draw(jobs: readonly CiJob[], options: GetOptions): void {
  const { rows, columns } = process.stdout;
  const lines = linesOf(jobs, options, Date.now());
  const shown =
    lines.length < rows ? lines : [...lines.slice(0, rows - 2), `… ${lines.length - rows + 2} more`];
  const cut = shown.map((line) => cutTo(line, columns));
  void out(`\u001b[H${cut.map((line) => `${line}\u001b[0m\u001b[K`).join('\n')}\n\u001b[J`);
}

function print(line: string): Promise<void> {
  return out(`${line}\n`);
}
