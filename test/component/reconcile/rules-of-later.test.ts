import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { cijobs } from '../../../controller/kube/resources.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { clearAway } from '../../support/left-under.ts';
import { SimBench } from '../../support/sim-bench.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

/*
 * CiJobs that an earlier version admitted, and whose specs the rules of today refuse: the controller reads them from the
 * API server, begins nothing for them, and looks after what was begun.
 */

let directory: string;
let bench: SimBench;
beforeEach(async () => {
  directory = await makeTempDir('rules');
  bench = await SimBench.start(join(directory, 'incus.sock'), { job: { runMs: 800, exitCode: 3 } });
});
afterEach(async () => {
  await bench.close();
  await clearAway(directory);
});

const instance = { type: 'Container', image: 'image' } as const;
const olds: [string, string, object][] = [
  ['a constant of bash in env', 'spec.env[0].name', { env: [{ name: 'UID', value: '7' }] }],
  [
    'a size beyond what Incus counts',
    'spec.instance.memory',
    { instance: { ...instance, memory: '1000TiB' } },
  ],
  [
    'a mount on a system path',
    'spec.mounts[0].path',
    { mounts: [{ name: 'm', source: '/a', path: '/etc/m' }] },
  ],
];

/** The API server has the job with this in its spec, and the controller reads it so when it starts. */
function holds(key: string, part: object): void {
  const job = bench.api.jobs.get(key);
  if (!job) throw new Error(`there is no ${key}`);
  bench.api.put(cijobs.schema.parse({ ...job, spec: { ...job.spec, ...part } }));
}
const last = () => bench.api.history.get('uid-job')?.at(-1);

describe.each(olds)('%s', (_what, path, part) => {
  test('is refused before anything is made, and the CiJob can be deleted', async () => {
    await bench.controller.crash();
    const key = bench.create('job');
    holds(key, part);
    await bench.replaceController();
    await bench.settled();
    expect(last()?.failure).toMatchObject({
      class: 'Config',
      reason: 'SpecNotAllowed',
      message: expect.stringContaining(path) as string,
    });
    expect(bench.sim.lives).toEqual([]);
    bench.api.delete(key, Date.now());
    expect(bench.api.jobs.size).toBe(0);
  });

  test.each([
    ['is looked after to its end', () => undefined, { phase: 'Failed', exitCode: 3 }],
    ['is taken away when the CiJob is deleted', (key: string) => bench.api.delete(key, Date.now()), {}],
  ])('%s where it runs', async (_end, then, outcome) => {
    const key = bench.create('job', { ttlSecondsAfterFinished: 0 });
    await expect.poll(() => bench.sim.runs(instanceName('uid-job', 1)), { timeout: 10_000 }).toBe(1);
    await bench.controller.crash();
    holds(key, part);
    await bench.replaceController();
    then(key);
    await bench.gone(10_000);
    expect(bench.sim.names()).toEqual([]);
    expect(last()).toMatchObject({ attempt: 1, ...outcome });
  });
});
