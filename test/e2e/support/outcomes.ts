import { setTimeout as delay } from 'node:timers/promises';
import type { CiJob } from '../../../controller/api/cijob.ts';
import { manifest } from './cluster.ts';
import type { Installed } from './installed.ts';

/** What can become of a job, and what it may look like on the way there. */
export type Outcome =
  'suspended' | 'running' | 'succeeded' | 'test' | 'timeout' | 'config' | 'cancelled' | 'infrastructure';

/** A job of every outcome, made for real, as the API server shows them then. Needs 4 slots. */
export async function everyOutcome(installed: Installed): Promise<Record<Outcome, CiJob>> {
  await installed.apply(
    manifest('suspended', { command: 'true', suspend: true }),
    manifest('running', { command: 'sleep 600', timeoutSeconds: 900 }),
    manifest('succeeded', { command: 'true' }),
    manifest('test', { command: 'exit 3' }),
    manifest('timeout', { command: 'sleep 30', timeoutSeconds: 1 }),
    manifest('config', { command: 'true', image: 'nobody/has-this' }),
    manifest('cancelled', { command: 'true', cancel: true }),
    manifest('infrastructure', { command: 'sleep 600', infraRetryLimit: 0 }),
  );
  await stopInstanceOf(installed, await running(installed, 'infrastructure'));
  await installed.finished('succeeded', 'test', 'timeout', 'config', 'cancelled', 'infrastructure');
  await running(installed, 'running');
  const jobs = await installed.jobs();
  return Object.fromEntries(jobs.map((job) => [job.metadata.name, job])) as Record<Outcome, CiJob>;
}

/** Waits until a job's command runs. */
export async function running(installed: Installed, name: string): Promise<CiJob> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    const job = (await installed.jobs()).find(({ metadata }) => metadata.name === name);
    if (job?.status?.phase === 'Running') return job;
    if (performance.now() > deadline) throw new Error(`${name} does not run: ${JSON.stringify(job?.status)}`);
    await delay(100);
  }
}

/** What a failing host does: the instance stops under the job. */
export async function stopInstanceOf({ bench }: Installed, job: CiJob): Promise<void> {
  const { incus, project } = bench.host;
  await incus.incusOk(['stop', '--force', '--project', project, job.status?.instance?.name ?? '']);
}
