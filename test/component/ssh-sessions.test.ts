import { expect, test } from 'vitest';
import { LiveLogs } from '../../controller/hosts/live-logs.ts';
import { sessionsFor } from '../../controller/hosts/link.ts';
import { instanceName } from '../../controller/reconcile/names.ts';
import { FarHost } from '../support/far-host.ts';

/* What of a connection is a session to sshd, which by default allows ten of them. */

test.each([10, 11, 13, 20, 64, 1024])(
  'through sudo, %i of them are enough for the streams made of them',
  (maxSessions) => {
    const { maxRequests, maxReads, maxLogs, maxArchives } = sessionsFor(maxSessions);
    expect(maxRequests + maxReads + 3 * maxLogs).toBe(maxSessions - 3);
    expect(maxRequests).toBeGreaterThanOrEqual(2);
    expect(maxReads).toBeGreaterThanOrEqual(2);
    expect(maxLogs).toBeGreaterThanOrEqual(1);
    expect(maxArchives).toBeGreaterThanOrEqual(1);
  },
);

test('there is one from the beginning, without which sshd holds small answers back, and streams are none', async () => {
  await using far = await FarHost.start();
  await using jobs = await far.reconciler();
  await expect.poll(() => far.machine.peakSessions).toBe(1);
  jobs.create('one');
  await expect.poll(() => jobs.over('one'), { timeout: 10_000 }).toBe(true);
  expect(far.machine.peakSessions).toBe(1);
});

test('through sudo, jobs whose logs are followed leave sessions for the requests of all, and each log is kept whole', async () => {
  const text = 'a line\n'.repeat(20);
  await using far = await FarHost.start({ job: { runMs: 300, exitCode: 0, log: text } }, { via: 'Sudo' });
  const kept = new Map<string, string>();
  const logs = new LiveLogs({
    size: ({ instance }) => kept.get(instance)?.length,
    write({ instance }, offset, chunk) {
      kept.set(instance, (kept.get(instance) ?? '').slice(0, offset) + chunk.toString());
      return Promise.resolve(true);
    },
  });
  await using jobs = await far.reconciler(logs);
  const names = Array.from({ length: 8 }, (_, index) => `job-${index}`);
  for (const name of names) jobs.create(name);
  await expect.poll(() => names.every((name) => jobs.over(name)), { timeout: 25_000 }).toBe(true);
  for (const name of names) {
    const job = jobs.job(name);
    expect(job?.status, name).toMatchObject({ phase: 'Succeeded', attempt: 1 });
    expect(kept.get(instanceName(job?.metadata.uid ?? '', 1)), name).toBe(text);
  }
  expect(far.machine.refusedSessions).toBe(0);
  expect(far.machine.accepted).toBe(1);
});
