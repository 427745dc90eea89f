import { findCondition } from '../api/conditions.ts';
import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import { instanceCleanupFinalizer } from '../api/meta.ts';
import { cijobs, incushosts } from '../kube/resources.ts';
import { heldUntil } from '../reconcile/clean-up.ts';
import { printable, printableJson, printableLine } from '../printable.ts';
import { duration } from '../reconcile/status.ts';
import { getJob, getRaw, withCluster, type ClusterFlags } from './cluster.ts';
import { out } from './output.ts';
import { bold, colourPhase, table } from './table.ts';

export interface DescribeOptions extends ClusterFlags {
  output: 'text' | 'json';
}

/** `cijob describe NAME`: what became of a CiJob, phase by phase, and why it waits or failed. */
export async function describe(name: string, options: DescribeOptions): Promise<number> {
  return withCluster(options, async (cluster) => {
    const { client, namespace } = cluster;
    if (options.output === 'json') {
      const raw = await getRaw(client, cijobs, { namespace, name });
      await out(`${printableJson(raw, 2)}\n`);
      return 0;
    }
    const job = await getJob(cluster, name);
    const { host } = job.status ?? {};
    // Who may read jobs need not be allowed to read hosts.
    const on =
      host === undefined ? undefined : await client.get(incushosts, { name: host }).catch(() => undefined);
    await out(`${description(job, on?.spec.project, Date.now()).join('\n')}\n`);
    return 0;
  });
}

/** @param project the Incus project of the job's host, if known. */
export function description(job: CiJob, project: string | undefined, now: number): string[] {
  const { metadata, spec, status = {} } = job;
  const { instance, failure } = status;
  const facts = [
    ['Name:', metadata.name],
    ['Namespace:', metadata.namespace ?? ''],
    ['Created:', metadata.creationTimestamp],
    ['Phase:', status.phase ?? 'Pending'],
    ['Command:', firstLine(spec.command)],
    [
      'Image:',
      spec.instance.image +
        (instance?.imageFingerprint ? ` (${instance.imageFingerprint.slice(0, 12)})` : ''),
    ],
    ...(status.host === undefined ? [] : [['Host:', status.host]]),
    ...(instance ? [['Instance:', `${instance.name}, attempt ${status.attempt ?? 1}`]] : []),
    ...(status.exitCode === undefined ? [] : [['Exit code:', String(status.exitCode)]]),
    ...(failure
      ? [['Failure:', `${failure.class}: ${failure.reason}: ${printableLine(failure.message)}`]]
      : []),
    ...(status.artifacts
      ? [
          ['Artifacts:', `${status.artifacts.files} files, ${status.artifacts.bytes} bytes`],
          ...(status.artifacts.notes ?? []).map(({ message }) => ['', printableLine(message)]),
        ]
      : []),
    ...(status.log
      ? [['Log:', `${status.log.bytes} bytes${status.log.truncated ? ', cut short' : ''}`]]
      : []),
  ];
  return [
    ...table(facts).map((line) =>
      colourPhase(line, line.startsWith('Phase:') ? (status.phase ?? 'Pending') : undefined),
    ),
    ...waiting(job),
    ...timeline(status, now),
    ...earlier(status),
    ...conditions(status),
    ...held(job, project, now),
    ...excerpt(status),
  ];
}

/** Why a job that is not over does not get on. */
function waiting({ spec, status, metadata }: CiJob): string[] {
  const admitted = findCondition(status?.conditions, 'Admitted');
  const ready = findCondition(status?.conditions, 'Ready');
  if (status?.completionTime !== undefined) return [];
  if (!status?.phase) {
    return ['', 'Waits: no controller has looked at it yet'];
  }
  if (ready?.status === 'Unknown') return ['', `Waits: ${ready.reason}: ${printableLine(ready.message)}`];
  if (admitted?.status === 'False')
    return ['', `Waits: ${admitted.reason}: ${printableLine(admitted.message)}`];
  if (spec.cancel) return ['', 'Is being cancelled'];
  return metadata.deletionTimestamp === undefined ? [] : ['', 'Is being deleted'];
}

const barWidth = 24;

/** Each phase with its time, and a bar that shows where in the whole it lies. */
function timeline({ timings = [] }: CiJobStatus, now: number): string[] {
  const [first] = timings;
  if (!first) return [];
  const spans = timings.map(({ phase, startedAt, finishedAt }) => ({
    phase,
    startedAt,
    from: Date.parse(startedAt),
    to: finishedAt === undefined ? now : Date.parse(finishedAt),
    over: finishedAt !== undefined,
  }));
  const begin = Date.parse(first.startedAt);
  const whole = Math.max(1, ...spans.map(({ to }) => to - begin));
  const rows = spans.map(({ phase, startedAt, from, to, over }) => {
    const left = Math.min(barWidth - 1, Math.floor(((from - begin) / whole) * barWidth));
    const length = Math.max(1, Math.round(((to - from) / whole) * barWidth));
    const bar = `${' '.repeat(left)}${'#'.repeat(Math.min(length, barWidth - left))}`;
    return [
      `  ${phase}`,
      startedAt,
      `${duration(to - from)}${over ? '' : ' so far'}`,
      `|${bar.padEnd(barWidth)}|`,
    ];
  });
  return ['', bold('Timeline:'), ...table(rows)];
}

function earlier({ attempts = [] }: CiJobStatus): string[] {
  if (attempts.length === 0) return [];
  const rows = attempts.map(({ attempt, host = '', finishedAt, reason, message }) => [
    `  ${attempt}`,
    host,
    finishedAt,
    `${reason}: ${printableLine(message)}`,
  ]);
  return ['', bold('Earlier attempts, lost to the infrastructure:'), ...table(rows)];
}

function conditions({ conditions: all = [] }: CiJobStatus): string[] {
  if (all.length === 0) return [];
  const rows = all.map(({ type, status, lastTransitionTime, reason, message }) => [
    `  ${type}`,
    status,
    lastTransitionTime,
    `${reason}: ${firstLine(message)}`,
  ]);
  return ['', bold('Conditions:'), ...table(rows)];
}

/** How to get into an instance that is kept. */
function held(job: CiJob, project: string | undefined, now: number): string[] {
  const { status = {}, metadata } = job;
  const until = heldUntil(job, status);
  const there = metadata.finalizers?.includes(instanceCleanupFinalizer) ?? false;
  if (until === undefined || until <= now || !there || !status.instance) return [];
  const inProject = project === undefined ? '' : ` --project ${project}`;
  return [
    '',
    `The instance is kept until ${new Date(until).toISOString()}; on ${status.host ?? 'its host'}:`,
    `  incus exec ${status.instance.name}${inProject} -- bash`,
  ];
}

function excerpt({ failure }: CiJobStatus): string[] {
  if (failure?.excerpt === undefined) return [];
  const lines = failure.excerpt.replace(/\n$/, '').split('\n');
  return ['', bold('End of the log:'), ...lines.map((line) => `  ${printable(line)}`)];
}

function firstLine(text: string): string {
  const [first = '', ...rest] = printable(text).split('\n');
  return rest.length > 0 ? `${first} …` : first;
}
