import type { CiJob } from '../api/cijob.ts';
import { findCondition } from '../api/conditions.ts';
import type { Admission, Observed, Patience } from './observed.ts';
import { no, type Step } from './step.ts';
import { config, infrastructure, type Verdict } from './verdict.ts';

/**
 * The least time for which the status of a job that is soon to have its turn shows one place in the queue, and the words
 * that go with it; in milliseconds.
 */
const placeInterval = 60_000;
const longestInterval = 30 * 60_000;
/** The places that count as soon. Further back, the interval grows with the place: a long queue costs little more. */
const soon = 100;
/** The least time for which a status shows one reason to wait, should it come and go; in milliseconds. */
const reasonInterval = 10_000;

/** The part of the plan for a job that holds no slot. */
export function planQueue(job: CiJob, observed: Observed, now: number, patience: Patience): Step {
  if (job.spec.suspend) {
    return {
      phase: 'Pending',
      queuedAt: undefined,
      queue: undefined,
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
  if (observed.hostless) return { verdict: withoutHost(job, admission) };
  const queuedAt = job.status?.queuedAt === undefined ? now : Date.parse(job.status.queuedAt);
  const timeout = job.spec.queueTimeoutSeconds;
  // A later attempt is not the queue's fault, and the job has begun.
  const giveUpAt =
    timeout === undefined || job.status?.attempts !== undefined ? undefined : queuedAt + timeout * 1000;
  if (giveUpAt !== undefined && now >= giveUpAt) {
    return { verdict: config('QueueTimeout', `no host had a free slot within ${timeout} s`) };
  }
  return { phase: 'Pending', queuedAt, ...shown(job, admission, now, giveUpAt ?? Infinity) };
}

/**
 * What a job that waits shows. A place changes whenever any job comes or goes, and each that is shown costs a write: so
 * the one that the status shows stands for a while, and it is the status that says since when.
 */
function shown(
  { status }: CiJob,
  { reason, message, position, length }: Extract<Admission, { kind: 'waiting' }>,
  now: number,
  giveUpAt: number,
): Step {
  const claim = no(reason, `${message}; place ${position} of ${length} in the queue`);
  const before = findCondition(status?.conditions, 'Admitted');
  const asOf = Date.parse(status?.queue?.asOf ?? '');
  const stands = before?.reason === reason ? intervalAt(position) : reasonInterval;
  // A time that is still to come is of another clock, and says nothing.
  const held = asOf <= now && now < asOf + stands;
  const same = before?.reason === reason && before.message === claim.message && status?.queue !== undefined;
  if (same || held) return { wakeAt: Math.min(giveUpAt, same ? now + intervalAt(position) : asOf + stands) };
  return {
    queue: { position, length, asOf: now },
    conditions: { Admitted: claim },
    wakeAt: Math.min(giveUpAt, now + intervalAt(position)),
  };
}

/** How long a place in the queue is left as it was written. A slot that is given to the job wakes it at once. */
function intervalAt(place: number): number {
  return Math.min(longestInterval, placeInterval * Math.max(1, place / soon));
}

/**
 * Nothing will ever run the job: no host may take it, or all that may are lost. What its last attempt was lost to then says
 * more than that it waits.
 */
function withoutHost({ status }: CiJob, admission: Extract<Admission, { kind: 'waiting' }>): Verdict {
  if (admission.hosts.length === 0) return config(admission.reason, admission.message);
  const { reason, message } = status?.attempts?.at(-1) ?? admission;
  return { ...infrastructure(reason, message), final: true };
}

/** When the next attempt may begin, after those that infrastructure failures ended. */
function nextAttemptAt(job: CiJob, { retryBase, retryMax }: Patience): number | undefined {
  const attempts = job.status?.attempts ?? [];
  const last = attempts.at(-1);
  if (!last) return undefined;
  return Date.parse(last.finishedAt) + Math.min(retryMax, retryBase * 2 ** (attempts.length - 1));
}
