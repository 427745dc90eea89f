import type { CiJob } from '../api/cijob.ts';
import type { Observed, Patience } from './observed.ts';
import { no, type Step } from './step.ts';
import { config } from './verdict.ts';

/** How often a job that waits has its place in the queue told anew, in milliseconds. */
const positionInterval = 60_000;

/** The part of the plan for a job that holds no slot. */
export function planQueue(job: CiJob, observed: Observed, now: number, patience: Patience): Step {
  if (job.spec.suspend) {
    return {
      phase: 'Pending',
      queuedAt: undefined,
      conditions: {
        Admitted: no('Suspended', 'spec.suspend is true: set it to false to have the job admitted'),
      },
    };
  }
  const retryAt = nextAttemptAt(job, patience);
  if (retryAt !== undefined && now < retryAt) return { phase: 'Pending', wakeAt: retryAt };
  const { admission } = observed;
  if (!admission) return { phase: 'Pending', needsSlot: true };
  if (admission.kind === 'admitted') return { phase: 'Provisioning', admittedTo: admission.host };
  if (admission.kind === 'refused') return { verdict: config(admission.reason, admission.message) };
  const queuedAt = job.status?.queuedAt === undefined ? now : Date.parse(job.status.queuedAt);
  const timeout = job.spec.queueTimeoutSeconds;
  // A later attempt is not the queue's fault, and the job has begun.
  const giveUpAt =
    timeout === undefined || job.status?.attempts !== undefined ? undefined : queuedAt + timeout * 1000;
  if (giveUpAt !== undefined && now >= giveUpAt) {
    return { verdict: config('QueueTimeout', `no host had a free slot within ${timeout} s`) };
  }
  const place = `place ${admission.position} of ${admission.length} in the queue`;
  return {
    phase: 'Pending',
    queuedAt,
    conditions: { Admitted: no(admission.reason, `${admission.message}; ${place}`) },
    wakeAt: Math.min(giveUpAt ?? Infinity, now + positionInterval),
  };
}

/** When the next attempt may begin, after those that infrastructure failures ended. */
function nextAttemptAt(job: CiJob, { retryBase, retryMax }: Patience): number | undefined {
  const attempts = job.status?.attempts ?? [];
  const last = attempts.at(-1);
  if (!last) return undefined;
  return Date.parse(last.finishedAt) + Math.min(retryMax, retryBase * 2 ** (attempts.length - 1));
}
