import { readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { SimBench } from '../../support/sim-bench.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

/** CI runs 2,000: SOAK_JOBS=2000 npx vitest run test/component/reconcile/soak.test.ts */
const jobs = Number(process.env['SOAK_JOBS'] ?? 150);
const warmUp = 50;
const atOnce = 100;
/** Every so many requests one is lost, and every so many all connections are cut. */
const lossEvery = 97;
const cutEvery = 1_501;

let directory: string;
beforeAll(async () => {
  directory = await makeTempDir('soak');
});
afterAll(() => rm(directory, { recursive: true, force: true }));

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Half of the jobs fail. */
function exitCodeOf(instance: string): number {
  return Number.parseInt(instance.slice(-1), 16) % 2;
}

/** What the process holds, once everything that was let go is gone, and with one fresh connection to the host. */
async function held({ sim, controller }: SimBench) {
  const host = controller.pool.get('host')!;
  const { since } = host.state;
  // How many streams are kept for the next request depends on how busy the machine was.
  sim.cutConnections();
  await expect
    .poll(() => host.state.kind === 'up' && host.state.since !== since, { timeout: 10_000 })
    .toBe(true);
  await pause(100);
  collectGarbage();
  await pause(20);
  collectGarbage();
  const resources = process.getActiveResourcesInfo();
  return {
    heapMiB: process.memoryUsage().heapUsed / 2 ** 20,
    openFiles: readdirSync('/proc/self/fd').length,
    sockets: resources.filter((what) => /Pipe|TCP|Socket/.test(what)).length,
    timers: resources.filter((what) => what === 'Timeout').length,
  };
}

test(
  `${jobs} jobs in a row with faults on leave the process as it was (SOAK_JOBS sets how many)`,
  { timeout: 120_000 + jobs * 120 },
  async () => {
    const bench = await SimBench.start(
      join(directory, 'incus.sock'),
      (name) => ({
        job: { runMs: 2, exitCode: exitCodeOf(name), log: 'x'.repeat(5_000) },
      }),
      16,
    );
    bench.sim.requests.keep = 10;
    bench.sim.daemon.hub.faults.duplicate = true;
    bench.atRequest = (count) => {
      if (count % cutEvery === 0) queueMicrotask(() => bench.sim.cutConnections());
      if (count % lossEvery !== 0) return undefined;
      return count % 2 === 0 ? 'before' : 'after';
    };
    let before: Awaited<ReturnType<typeof held>> | undefined;
    const open = new Set<string>();
    try {
      for (let made = 0, done = 0; done < jobs;) {
        // The first jobs fill caches and pools; what comes after them must add nothing.
        const limit = before ? jobs : Math.min(jobs, warmUp);
        while (made < limit && open.size < atOnce) {
          const name = `soak-${made}`;
          made += 1;
          open.add(name);
          bench.create(name, { ttlSecondsAfterFinished: 0 });
        }
        await pause(5);
        for (const name of [...open].filter((one) => !bench.api.jobs.has(`default/${one}`))) {
          const instance = instanceName(`uid-${name}`, 1);
          const { exitCode, attempt } = bench.api.history.get(`uid-${name}`)!.at(-1)!;
          expect([exitCode, attempt, bench.sim.runs(instance)]).toEqual([exitCodeOf(instance), 1, 1]);
          open.delete(name);
          done += 1;
          // What the bench itself remembers is not the controller's.
          bench.api.history.delete(`uid-${name}`);
        }
        bench.api.writes.length = 0;
        bench.controller.errors.length = 0;
        if (open.size > 0 || before || made < warmUp) continue;
        (bench.sim.lives as unknown[]).length = 0;
        before = await held(bench);
      }
      (bench.sim.lives as unknown[]).length = 0;
      expect(bench.sim.names()).toEqual([]);
      const after = await held(bench);
      expect(after.openFiles - before!.openFiles, 'open files').toBeLessThanOrEqual(8);
      expect(after.sockets - before!.sockets, 'sockets').toBeLessThanOrEqual(8);
      expect(after.timers - before!.timers, 'timers').toBeLessThanOrEqual(4);
      expect(after.heapMiB - before!.heapMiB, 'heap').toBeLessThan(12);
      expect(bench.controller.pool.used('host')).toBe(0);
    } finally {
      await bench.close();
    }
    // Nothing of a controller that has been dropped stays open.
    await expect.poll(() => bench.sim.connections, { timeout: 5_000 }).toBe(0);
  },
);
