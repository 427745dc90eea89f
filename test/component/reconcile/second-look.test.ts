import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { resultPath } from '../../support/incus-sim/guest-script.ts';
import { clearAway } from '../../support/left-under.ts';
import { SimBench } from '../../support/sim-bench.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

let directory: string;
beforeEach(async () => {
  directory = await makeTempDir('look');
});
afterEach(() => clearAway(directory));

test('a job that ends after the first list, and before Incus begins to send events, is seen to end all the same', async () => {
  const bench = await SimBench.start(join(directory, 'incus.sock'), { job: { runMs: 800, exitCode: 4 } });
  try {
    const { hub } = bench.sim.daemon;
    const instance = instanceName('uid-job', 1);
    bench.create('job');
    await expect.poll(() => bench.sim.runs(instance), { timeout: 10_000, interval: 5 }).toBe(1);
    hub.faults.lose = () => true;
    await bench.replaceController();
    const result = () => bench.sim.instance(instance)?.guest.files.get(resultPath);
    await expect
      .poll(result, { timeout: 10_000 })
      .toMatchObject({ content: expect.stringContaining('4') as string });
    hub.faults.lose = () => false;
    await bench.settled();
    expect(bench.api.history.get('uid-job')?.at(-1)).toMatchObject({ exitCode: 4, attempt: 1 });
    expect(bench.sim.runs(instance)).toBe(1);
  } finally {
    await bench.close();
  }
});
