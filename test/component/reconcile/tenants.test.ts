import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { InstanceSpec } from '../../../controller/api/cijob.ts';
import { SimBench } from '../../support/sim-bench.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

let directory: string;
beforeAll(async () => {
  directory = await makeTempDir('tenants');
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** Jobs of one namespace whose every creation fails, and jobs of another, on one host. */
async function attacked(attackers: number, victims: number) {
  // Our own check finds it; the simulated Incus does not, and says so in words that have the path.
  const source = join(directory, `secret-of-the-attacker-${attackers}`);
  await mkdir(source);
  const bench = await SimBench.start(join(directory, `${attackers}.sock`), { job: { runMs: 2 } }, 4, {
    host: { allowedSources: [source] },
  });
  for (let index = 0; index < attackers; index += 1) {
    bench.create(`attacker-${index}`, {
      namespace: 'attacker',
      priority: 1_000_000,
      infraRetryLimit: 10,
      mounts: [{ name: 'snapshot', source }],
    });
  }
  for (let index = 0; index < victims; index += 1) {
    bench.create(`victim-${index}`, { namespace: 'victim', infraRetryLimit: 0 });
  }
  return { bench, source };
}

test(
  'jobs whose creation always fails close the host to their own namespace alone, and their words stay with them',
  { timeout: 60_000 },
  async () => {
    const { bench, source } = await attacked(3, 60);
    try {
      await expect
        .poll(
          () => [...bench.api.jobs.values()].filter(({ status }) => status?.phase === 'Succeeded').length,
          {
            timeout: 50_000,
          },
        )
        .toBe(60);
      const histories = [...bench.api.history].filter(([uid]) => uid.startsWith('uid-victim'));
      expect(histories).toHaveLength(60);
      const told = JSON.stringify(histories);
      expect(told).not.toContain('HostUnschedulable');
      expect(told).not.toContain(source);
      // Who looks at the host finds out what Incus says.
      expect(bench.controller.pool.refusalOf('host')).toMatchObject({
        all: false,
        message: expect.stringContaining(source) as string,
      });
    } finally {
      await bench.close();
    }
  },
);

test('a job that is larger than the machine or its pool fails at once, and one that fits in later waits', async () => {
  const GiB = 2 ** 30;
  const bench = await SimBench.start(join(directory, 'small.sock'), { job: { runMs: 200 } }, 4);
  const { machine, poolSpace } = bench.sim.store;
  machine.cpu.total = 4;
  machine.memory.total = 10 * GiB;
  poolSpace.total = 100 * GiB;
  await bench.replaceController();
  await expect.poll(() => bench.controller.pool.get('host')?.state.kind).toBe('up');
  try {
    const instance = (part: object) => ({
      instance: InstanceSpec.parse({ type: 'Container', image: 'image', ...part }),
    });
    const large = [{ cpu: 5 }, { memory: '10GiB' }, { rootDisk: '101GiB' }].map((part, index) =>
      bench.create(`large-${index}`, instance(part)),
    );
    const small = [0, 1, 2].map((index) =>
      bench.create(`small-${index}`, instance({ cpu: 4, memory: '5GiB', rootDisk: '100GiB' })),
    );
    await bench.settled();
    expect(large.map((key) => bench.api.jobs.get(key)?.status?.failure)).toEqual(
      Array(3).fill(expect.objectContaining({ class: 'Config', reason: 'ExceedsCapacity' })),
    );
    expect(small.map((key) => bench.api.jobs.get(key)?.status?.phase)).toEqual(Array(3).fill('Succeeded'));
    // Nine tenths of the memory are for one such job at a time.
    expect(JSON.stringify([...bench.api.history])).toContain('5.0GiB of 9.0GiB of memory');
    expect(bench.sim.lives).toHaveLength(3);
  } finally {
    await bench.close();
  }
});
