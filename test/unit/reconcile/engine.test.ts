import { expect, test } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import { Engine } from '../../../controller/reconcile/engine.ts';
import { defaultPatience, type Admission } from '../../../controller/reconcile/observed.ts';
import type { HostsPort, JobStore } from '../../../controller/reconcile/ports.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { manifest } from '../../e2e/support/cluster.ts';

const { spec } = manifest('a', { command: 'true' });
const metadata = { name: 'a', namespace: 'ci', uid: 'u', generation: 1, finalizers: [] };
const job = {
  metadata: { ...metadata, creationTimestamp: '2026-01-01T00:00:00Z' },
  spec: { bootTimeoutSeconds: 60, env: [], mounts: [], infraRetryLimit: 0, ...spec },
} as unknown as CiJob;

/** An engine with one job, on a host that grants it a slot and refuses what it is asked. */
function engineOf(writes: () => void, part: { clock?: ManualClock; admission?: Admission } = {}) {
  const { clock = new ManualClock(), admission = { kind: 'admitted', host: 'build-1' } } = part;
  const told: string[] = [];
  let looks = 0;
  let stored: CiJob | undefined = job;
  const store = {
    get: () => stored,
    addFinalizer: (one) => Promise.resolve((stored = { ...one })),
    writeStatus(one, status) {
      writes();
      return Promise.resolve((stored = { ...one, status }));
    },
  } as Partial<JobStore> as JobStore;
  const hosts = {
    get: () => ({
      spec: { storagePool: 'default' },
      state: { kind: 'up', since: 0 },
      inventory: {
        get: () => undefined,
        isBusy: () => false,
        isRunning: () => false,
        ended: () => undefined,
      },
    }),
    instancesOf: () => [],
    admit: () => admission,
    occupy: () => undefined,
    release: () => undefined,
    withdraw: () => undefined,
    perform: () => Promise.resolve({ kind: 'refused', reason: 'ImageNotFound', message: 'none' }),
  } as Partial<HostsPort> as HostsPort;
  const engine = new Engine({
    store,
    hosts,
    clock,
    onReconcile: () => (looks += 1),
    concurrency: 1,
    controllerId: 'test',
    patience: defaultPatience,
    namespaceLabels: () => ({}),
    onError: (_key, _error, id) => told.push(`error ${id}`),
    observer: {
      status: ({ after, reconcileID }) => told.push(`${after.phase ?? ''} ${reconcileID}`),
      command: ({ command, reconcileID }) => told.push(`${command.verb} ${reconcileID}`),
    },
  });
  const remove = () => (stored = undefined);
  return { engine, told, remove, looks: () => looks };
}

test('each look at a job has an id of its own, which all that it does is told with', async () => {
  const { engine, told } = engineOf(() => undefined);
  engine.wake('ci/a');
  await expect.poll(() => told.length).toBeGreaterThanOrEqual(3);
  await engine.stop();
  const [admitted = '', resolved = '', failed = ''] = told;
  expect(told.map((line) => line.split(' ')[0])).toEqual(['Provisioning', 'resolve', 'Failed']);
  expect(admitted.split(' ')[1]).toMatch(/^[0-9a-f-]{36}$/);
  expect(resolved.split(' ')[1]).toBe(admitted.split(' ')[1]);
  expect(failed.split(' ')[1]).not.toBe(admitted.split(' ')[1]);
});

test('a look that fails is told with its id, too', async () => {
  const { engine, told } = engineOf(() => {
    throw new Error('the API server is away');
  });
  engine.wake('ci/a');
  await expect.poll(() => told.length).toBeGreaterThanOrEqual(1);
  await engine.stop();
  expect(told[0]).toMatch(/^error [0-9a-f-]{36}$/);
});

test('a look that was planned is called off when there is nothing more to wait for', async () => {
  const clock = new ManualClock();
  const admission = {
    kind: 'waiting',
    reason: 'NoFreeSlot',
    message: '',
    hosts: ['h'],
    position: 1,
    length: 1,
  } as const;
  const { engine, looks, remove } = engineOf(() => undefined, { clock, admission });
  engine.wake('ci/a');
  await expect.poll(looks).toBe(1);
  clock.advance(60_000);
  await expect.poll(looks).toBe(2);
  remove();
  engine.wake('ci/a');
  await expect.poll(looks).toBe(3);
  clock.advance(3_600_000);
  expect(engine.queue.depth).toBe(0);
  await engine.stop();
  expect(looks()).toBe(3);
});
