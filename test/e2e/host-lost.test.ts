import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CiJob } from '../../controller/api/cijob.ts';
import { forceCleanupAnnotation } from '../../controller/api/meta.ts';
import { startBench, type Bench, type BenchHost } from './support/bench.ts';
import { Cluster, eventually, manifest, type JobInput } from './support/cluster.ts';

/*
 * A host that goes away under its jobs and stays away for longer than the controller waits for it, beside one that
 * stays. The tests tell one story, in order.
 */

const names = ['away', 'here'] as const;
let bench: Bench;
let cluster: Cluster;
/** The instance of each job before its host went away. */
const instances = new Map<string, string>();

const on = (name: (typeof names)[number], job: JobInput): JobInput => ({
  hostSelector: { matchLabels: { name } },
  ...job,
});
const hostOf = (name: (typeof names)[number]): BenchHost => bench.hosts[names.indexOf(name)]!;

/** Says how often it ran, and ends when it is told to. */
const untilTold =
  'echo ran >> /artifacts/ran; until [ -e /artifacts/go ]; do sleep 0.1; done; cat /artifacts/ran; exit 7';
const ranOnce = { exitCode: 7, failure: { class: 'Test', excerpt: 'ran\n' } };

async function tell(host: BenchHost, instance: string): Promise<void> {
  await host.incus.execOk(host.project, instance, ['touch', '/artifacts/go']);
}

const condition = ({ status }: CiJob, type: string) => status?.conditions?.find((one) => one.type === type);

/** Reasons of the Events about a job. */
async function reasons(job: string): Promise<string[]> {
  const { items } = JSON.parse(await cluster.kubectl('get', 'events.events.k8s.io', '-o', 'json')) as {
    items: { reason: string; regarding: { name: string } }[];
  };
  return items.filter(({ regarding }) => regarding.name === job).map(({ reason }) => reason);
}

async function told(job: string, reason: string): Promise<void> {
  await eventually(
    () => reasons(job),
    (all) => all.includes(reason),
    `an Event ${reason} of ${job}`,
    30,
  );
}

async function metric(name: string): Promise<number> {
  const { body } = await cluster.controller.get('/metrics');
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(body)?.[1]);
}

beforeAll(async () => {
  bench = await startBench({ controlPlane: true, hosts: 2 });
  const host = (name: string) => ({ labels: { name, pair: 'yes' } });
  cluster = await Cluster.start(bench, {
    hosts: { away: host('away'), here: host('here') },
    flags: ['--host-grace-seconds', '4', '--orphan-grace-seconds', '1'],
  });
  await cluster.apply('stays', on('here', { command: untilTold }));
  await cluster.until('stays', 'RunnerStarted');
  await cluster.applyAll({
    // Either host may have it; the one with more room does.
    moves: { command: untilTold, hostSelector: { matchLabels: { pair: 'yes' } } },
    'gives-up': on('away', { command: 'sleep 3000', timeoutSeconds: 3600, infraRetryLimit: 0 }),
  });
  // Somebody else's finalizer, so that the job can be looked at after the controller has let go of it.
  const deleted = manifest('deleted', on('away', { command: 'sleep 3000', timeoutSeconds: 3600 }));
  await cluster.applyObjects({
    ...deleted,
    metadata: { name: 'deleted', namespace: 'ci', finalizers: ['example.org/somebody-else'] },
  });
  for (const name of ['moves', 'deleted', 'gives-up']) {
    const { status } = await cluster.until(name, 'RunnerStarted');
    expect(status?.host, name).toBe('away');
    instances.set(name, status?.instance?.name ?? '');
  }
  await hostOf('away').sshd.halt();
  await cluster.kubectl('delete', 'cijob', 'deleted', '--wait=false');
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
});

test('after the grace its jobs are of class Infrastructure: a new attempt runs on the other host', async () => {
  const moved = await cluster.reached(
    'moves',
    'runs again',
    ({ status }) => status?.attempt === 2 && status.phase === 'Running',
  );
  expect(moved.status).toMatchObject({
    host: 'here',
    attempts: [{ attempt: 1, host: 'away', reason: 'HostLost', instance: instances.get('moves') }],
  });
  await told('moves', 'HostLost');
  const { status } = await cluster.reached(
    'gives-up',
    'is over',
    (job) => job.status?.completionTime !== undefined,
  );
  expect(status).toMatchObject({
    phase: 'Failed',
    attempt: 1,
    failure: { class: 'Infrastructure', reason: 'HostLost' },
  });
});

test('jobs on the other host do not notice: those that run, and those that come', async () => {
  await cluster.apply('comes', on('here', { command: 'exit 5' }));
  expect((await cluster.finished('comes')).status).toMatchObject({ exitCode: 5, attempt: 1 });
  const { status } = await cluster.job('stays');
  expect(status).toMatchObject({ phase: 'Running', attempt: 1, host: 'here' });
  expect(condition(await cluster.job('stays'), 'Ready')).toMatchObject({
    status: 'False',
    reason: 'Running',
  });
  await tell(hostOf('here'), status?.instance?.name ?? '');
  expect((await cluster.finished('stays')).status).toMatchObject({ ...ranOnce, attempt: 1 });
});

test('a job deleted there is not let go while its instance may be left: condition, Event and metric say so', async () => {
  const job = await cluster.reached(
    'deleted',
    'is known to be stuck',
    (one) => condition(one, 'InstanceDeleted')?.status === 'Unknown',
  );
  expect(condition(job, 'InstanceDeleted')).toMatchObject({
    reason: 'HostUnreachable',
    message: expect.stringContaining('away') as string,
  });
  expect(job.status).toMatchObject({
    phase: 'Cancelled',
    failure: { class: 'Cancelled', reason: 'Deleted' },
  });
  await told('deleted', 'CleanupBlocked');
  await eventually(
    () => metric('cijob_oldest_cleanup_seconds'),
    (seconds) => seconds > 1,
    'the metric of the oldest clean-up',
    30,
  );
  expect(job.metadata.finalizers).toContain('ci.pikaci.dev/instance-cleanup');
});

test(`${forceCleanupAnnotation} lets go of it, and that is recorded`, async () => {
  await cluster.kubectl('annotate', 'cijob', 'deleted', `${forceCleanupAnnotation}=true`);
  const job = await cluster.reached(
    'deleted',
    'is let go',
    ({ metadata }) => !metadata.finalizers?.includes('ci.pikaci.dev/instance-cleanup'),
  );
  expect(condition(job, 'InstanceDeleted')).toMatchObject({ status: 'False', reason: 'Forced' });
  await told('deleted', 'CleanupForced');
  await cluster.kubectl(
    'patch',
    'cijob',
    'deleted',
    '--type=merge',
    '-p',
    '{"metadata":{"finalizers":null}}',
  );
  await cluster.gone('deleted');
  // What the annotation is not for: the job that was not deleted waits for its host.
  expect((await cluster.job('gives-up')).metadata.finalizers).toEqual(['ci.pikaci.dev/instance-cleanup']);
});

test('when the host is back, what was left there is removed: of the attempt that was lost, and of the job let go', async () => {
  expect((await cluster.instances(hostOf('away'))).sort()).toEqual([...instances.values()].sort());
  await hostOf('away').sshd.restart();
  await cluster.hostReady('away', 90);
  await cluster.cleanedUp('gives-up');
  await eventually(
    () => cluster.instances(hostOf('away')),
    (left) => left.length === 0,
    'nothing is left on the host that was away',
    60,
  );
  const { status } = await cluster.job('moves');
  expect(status).toMatchObject({ phase: 'Running', attempt: 2, host: 'here' });
  await tell(hostOf('here'), status?.instance?.name ?? '');
  expect((await cluster.finished('moves')).status).toMatchObject({ ...ranOnce, attempt: 2 });
  expect(await cluster.instances(hostOf('here'))).toEqual([]);
});
