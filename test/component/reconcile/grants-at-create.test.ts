import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { IncusHostSpec } from '../../../controller/api/incushost.ts';
import type { CommandEnd } from '../../../controller/reconcile/ports.ts';
import { clearAway } from '../../support/left-under.ts';
import { SimBench } from '../../support/sim-bench.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

/*
 * What a host lets jobs use is taken away while instances wait to be made: the real engine, pool and HTTP, over a simulated
 * Incus that is slow to take the first of two requests, of which the host takes one at a time.
 */

let directory: string;
let bench: SimBench;
let resolved: Set<string>;
let labels: Record<string, string>;
const sources = () => ['one', 'two'].map((name) => join(directory, name));

beforeEach(async () => {
  directory = await makeTempDir('grants');
  for (const source of sources()) await mkdir(source);
  resolved = new Set();
  labels = { team: 'a' };
  const host: Partial<IncusHostSpec> = {
    maxConcurrentStarts: 1,
    allowedNamespaces: { matchLabels: { team: 'a' } },
    allowedImages: ['image', 'other'],
    allowedProfiles: ['default', 'extra'],
    allowedSources: sources(),
    allowedMountPaths: ['/cache'],
  };
  const command = ({ job, command: { verb } }: CommandEnd) => {
    if (verb === 'resolve') resolved.add(job.metadata.name);
  };
  const observe = () => ({ status: () => undefined, command });
  const namespaceLabels = () => labels;
  bench = await SimBench.start(join(directory, 'incus.sock'), {}, 9, { host, observe, namespaceLabels });
  bench.sim.store.addImage('other');
  bench.sim.store.projects.get('default')?.profiles.set('extra', { config: {}, devices: {} });
  for (const source of sources()) bench.sim.host.directory(source);
});
afterEach(async () => {
  await bench.close();
  await clearAway(directory);
});

/** Has the first job's request held up, and the others wait behind it; then calls `change`, and lets them go on. */
async function changeWhileWaiting(jobs: readonly string[], change: () => Promise<void> | void) {
  await expect.poll(() => resolved.size, { timeout: 10_000 }).toBe(jobs.length);
  await change();
  expect(bench.sim.lives).toEqual([]);
  await bench.settled();
  return Object.fromEntries(
    jobs.map((name) => [name, bench.api.history.get(`uid-${name}`)?.at(-1)?.failure?.reason]),
  );
}

test('a job that waits to be made is refused what its host does not allow any more', async () => {
  bench.sim.faults.on({ method: 'POST', path: '/1.0/instances' }, { kind: 'delay', milliseconds: 3_000 });
  const [one = '', two = ''] = sources();
  const instance = (part: object) => ({ instance: { type: 'Container', image: 'image', ...part } });
  const jobs: Record<string, object> = {
    first: {},
    allowed: { mounts: [{ name: 'm', source: one, path: '/data' }] },
    image: instance({ image: 'other' }),
    profile: instance({ profiles: ['extra'] }),
    source: { mounts: [{ name: 'm', source: two, path: '/data' }] },
    path: { mounts: [{ name: 'm', source: one, path: '/cache/x' }] },
  };
  for (const [name, spec] of Object.entries(jobs)) bench.create(name, spec);
  const reasons = await changeWhileWaiting(Object.keys(jobs), () =>
    bench.controller.pool.put(
      bench.host({
        allowedImages: ['image'],
        allowedProfiles: ['default'],
        allowedSources: [one],
        allowedMountPaths: [],
      }),
    ),
  );
  expect(reasons).toEqual({
    first: undefined,
    allowed: undefined,
    image: 'ImageNotAllowed',
    profile: 'ProfileNotAllowed',
    source: 'SourceNotAllowed',
    path: 'MountPathNotAllowed',
  });
  expect(bench.sim.lives.map(({ config }) => config['user.cijob.name'])).toEqual(['first', 'allowed']);
});

test('and is not made where its namespace has lost the labels that the host asks for', async () => {
  bench.sim.faults.on({ method: 'POST', path: '/1.0/instances' }, { kind: 'delay', milliseconds: 3_000 });
  for (const name of ['first', 'second']) bench.create(name);
  const reasons = await changeWhileWaiting(['first', 'second'], () => {
    labels = { team: 'b' };
  });
  expect(reasons).toEqual({ first: undefined, second: 'NamespaceNotAllowed' });
  expect(bench.sim.lives).toHaveLength(1);
});
