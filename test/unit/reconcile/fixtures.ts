import { CiJob, type CiJobSpec } from '../../../controller/api/cijob.ts';
import { instanceCleanupFinalizer } from '../../../controller/api/meta.ts';
import type { InstanceView } from '../../../controller/incus/inventory.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { blankMemory, type Memory, type Observed } from '../../../controller/reconcile/observed.ts';
import { statusAfter } from '../../../controller/reconcile/status.ts';
import { yes } from '../../../controller/reconcile/step.ts';

export const now = Date.parse('2026-01-01T12:00:00Z');
export const time = new Date(now).toISOString();
/** Of the first attempt. */
export const name = instanceName('uid', 1);

/** A container job as it comes from the API server. */
export function aJob(spec: Partial<CiJobSpec> = {}, metadata: Partial<CiJob['metadata']> = {}): CiJob {
  return CiJob.parse({
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'CiJob',
    metadata: {
      name: 'job',
      namespace: 'ci',
      uid: 'uid',
      creationTimestamp: time,
      finalizers: [instanceCleanupFinalizer],
      ...metadata,
    },
    spec: { command: 'true', instance: { type: 'Container', image: 'image' }, ...spec },
  });
}

/** The same, once it holds a slot on host `h`. */
export function admitted(...of: Parameters<typeof aJob>): CiJob {
  const job = aJob(...of);
  const step = { admittedTo: 'h', phase: 'Provisioning' } as const;
  return { ...job, status: statusAfter(job, step, seen(), now) };
}

/** The same, once its runner was launched. */
export function running(...of: Parameters<typeof aJob>): CiJob {
  const job = admitted(...of);
  const conditions = { AgentReady: yes('AgentAnswers', ''), RunnerStarted: yes('RunnerLaunched', '') };
  const step = { phase: 'Running', conditions } as const;
  return { ...job, status: statusAfter(job, step, seen(), now) };
}

/** What is seen of a job whose host is connected and has nothing of it. */
export function seen(part: Partial<Omit<Observed, 'memory'>> & { memory?: Partial<Memory> } = {}): Observed {
  return {
    controllerId: 'us',
    host: { kind: 'up', since: now, storagePool: 'default' },
    instance: undefined,
    underWay: false,
    runner: 'none',
    strays: [],
    unseen: [],
    admission: undefined,
    hostless: false,
    ...part,
    memory: { ...blankMemory(1), ...part.memory },
  };
}

/** The job's instance, which runs. */
export function anInstance(part: Partial<InstanceView> = {}): InstanceView {
  return {
    name,
    type: 'container',
    status: 'Running',
    everStarted: true,
    startedAt: now,
    announcedReady: false,
    labels: { uid: 'uid', controller: 'us' },
    devices: {},
    settings: {},
    operations: new Set(),
    ...part,
  };
}
