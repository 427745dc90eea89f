import { expect, test } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import { Engine } from '../../../controller/reconcile/engine.ts';
import { defaultPatience } from '../../../controller/reconcile/observed.ts';
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
function engineOf(writes: () => void) {
  const told: string[] = [];
  let stored = job;
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
    admit: () => ({ kind: 'admitted', host: 'build-1' }),
    occupy: () => undefined,
    release: () => undefined,
    withdraw: () => undefined,
    perform: () => Promise.resolve({ kind: 'refused', reason: 'ImageNotFound', message: 'none' }),
  } as Partial<HostsPort> as HostsPort;
  const engine = new Engine({
    store,
    hosts,
    clock: new ManualClock(),
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
  return { engine, told };
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
