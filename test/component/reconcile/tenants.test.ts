import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
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
    allowedSources: [source],
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
