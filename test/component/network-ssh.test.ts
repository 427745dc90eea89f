import { describe, test } from 'vitest';
import { FarHost } from '../support/far-host.ts';

/*
 * What a bad network does to the way to an Incus host. Each test waits in real time, so they run beside each other.
 */

const minute = { timeout: 90_000 };
const patience = { timeout: 60_000, interval: 50 };

describe.concurrent('a job on a host behind a network', () => {
  test(
    'that drops everything, and closes nothing, carries on when the network is back',
    minute,
    async ({ expect }) => {
      await using host = await FarHost.start({ job: { runMs: 3000, exitCode: 4 } });
      await using jobs = await host.reconciler();
      jobs.create('one');
      await expect.poll(() => host.incus.lives[0]?.counts.runs, patience).toBe(1);

      host.network.faults.blackHole = true;
      const since = performance.now();
      await expect.poll(() => jobs.up, patience).toBe(false);
      // Three pings, five seconds apart, and what it takes to notice.
      expect(performance.now() - since).toBeGreaterThan(10_000);
      expect(performance.now() - since).toBeLessThan(30_000);
      // Nobody knows how the job goes on, so nothing is decided, and nothing tried at a rate that would hurt.
      expect(jobs.job('one')?.status?.completionTime).toBeUndefined();
      const [tried, asked] = [host.network.accepted, host.incus.requests.count()];
      await new Promise((resolve) => setTimeout(resolve, 5_000));
      expect(host.network.accepted - tried).toBeLessThanOrEqual(5);
      expect(host.incus.requests.count()).toBe(asked);

      host.network.faults.blackHole = false;
      await expect.poll(() => jobs.over('one'), patience).toBe(true);
      expect(jobs.job('one')?.status).toMatchObject({ phase: 'Failed', exitCode: 4, attempt: 1 });
      expect(host.incus.lives.map(({ counts }) => counts.runs)).toEqual([1]);
      expect(host.incus.names()).toEqual([]);
    },
  );

  test(
    'with half a second of latency each way takes longer, and asks no more',
    minute,
    async ({ expect }) => {
      await using host = await FarHost.start({ job: { runMs: 200 } });
      host.network.faults.latencyMs = 500;
      await using jobs = await host.reconciler();
      for (const name of ['one', 'two', 'three']) jobs.create(name);
      for (const name of ['one', 'two', 'three']) {
        await expect.poll(() => jobs.over(name), patience).toBe(true);
        expect(jobs.job(name)?.status).toMatchObject({ phase: 'Succeeded', attempt: 1 });
      }
      expect(host.incus.lives.map(({ counts }) => counts.runs)).toEqual([1, 1, 1]);
      expect(host.network.accepted).toBe(1);
      expect(host.incus.requests.count()).toBeLessThan(60);
    },
  );

  test(
    'so slow that a list takes longer than three pings is done all the same',
    minute,
    async ({ expect }) => {
      await using host = await FarHost.start();
      const list = { type: 'sync', status_code: 200, metadata: [], ballast: 'x'.repeat(90_000) };
      const answer = { kind: 'answer', status: 200, body: JSON.stringify(list) } as const;
      host.incus.faults.on({ method: 'GET', path: '/1.0/instances' }, answer);
      host.network.faults.bytesPerSecond = 4096;
      await using jobs = await host.reconciler();
      jobs.create('one');
      await expect.poll(() => jobs.over('one'), patience).toBe(true);
      expect(jobs.job('one')?.status).toMatchObject({ phase: 'Succeeded', attempt: 1 });
      // Answers to pings wait behind the list, and are no reason to begin anew.
      expect(host.network.accepted).toBe(1);
    },
  );

  test('that cuts every connection as soon as it stands is not hammered', minute, async ({ expect }) => {
    await using host = await FarHost.start();
    await using jobs = await host.reconciler();
    host.network.faults.refuse = true;
    host.network.reset();
    const tried = host.network.accepted;
    await new Promise((resolve) => setTimeout(resolve, 8_000));
    expect(host.network.accepted - tried).toBeGreaterThanOrEqual(2);
    expect(host.network.accepted - tried).toBeLessThanOrEqual(10);
    host.network.faults.refuse = false;
    jobs.create('one');
    await expect.poll(() => jobs.over('one'), patience).toBe(true);
  });
});
