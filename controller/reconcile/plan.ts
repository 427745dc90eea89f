import { isTrue } from '../api/conditions.ts';
import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import type { Command } from '../incus/commands.ts';
import { planAttempt } from './attempt.ts';
import { cleanUp } from './clean-up.ts';
import type { Observed, Patience } from './observed.ts';
import { planQueue } from './queue.ts';
import { specFault } from './spec-fault.ts';
import { statusAfter, statusWhileCleaning } from './status.ts';
import { calledOff, hasFinalizer, isFinished, type Step } from './step.ts';

/** What to do about a job now. Data only: carrying it out and planning again gives a plan that does nothing. */
export interface Plan {
  /** The status that the job should show. */
  status: CiJobStatus;
  /** Whether our finalizer should be on the job. It must be before the first command that changes anything. */
  finalizer: boolean;
  /** The job is over and nothing of it is left on any host. */
  done: boolean;
  /** Commands to send, in order, each to its host; a later one only if the earlier did its work. */
  commands: readonly { host: string; command: Command }[];
  /** What is under way at a guest should end with what it has, after so many milliseconds to come to its own end. */
  cutShortIn: number | undefined;
  /** The job should ask for a slot, and be planned again with the answer. */
  needsSlot: boolean;
  /** The job is done, and past its ttl. */
  expired: boolean;
  /** Names of instances of earlier attempts that are still there. */
  strays: readonly string[];
  /** Look again at this time (milliseconds since the epoch), even if nothing happens. */
  wakeAt: number | undefined;
}

/**
 * Compares what a job wants with what there is. Pure: no I/O, no clock, no memory but what is passed in.
 *
 * @param job with the newest status we computed, stored or not.
 * @param now milliseconds since the epoch.
 */
export function plan(job: CiJob, observed: Observed, now: number, patience: Patience): Plan {
  const step = stepOf(job, observed, now, patience);
  const concluded = statusAfter(job, step, observed, now);
  const over = isFinished({ ...job, status: concluded });
  const cleaning = cleanUp(job, concluded, observed, now);
  const finalizer = hasFinalizer(job);
  // It was let go before. A host that is out of sight by now does not bring it back.
  const letGo = isFinished(job) && !finalizer;
  const status = letGo ? concluded : statusWhileCleaning(job, concluded, cleaning, now);
  const commands = [...(step.commands ?? []), ...cleaning.commands];
  const done = over && (cleaning.clean || (letGo && commands.length === 0));
  const ttl = job.spec.ttlSecondsAfterFinished;
  const expiresAt =
    over &&
    ttl !== undefined &&
    status.completionTime !== undefined &&
    job.metadata.deletionTimestamp === undefined
      ? Date.parse(status.completionTime) + ttl * 1000
      : undefined;
  const expired = expiresAt !== undefined && now >= expiresAt;
  return {
    status,
    finalizer: !done && !letGo && (finalizer || status.host !== undefined),
    done,
    commands: observed.memory.inFlight === undefined ? commands : [],
    cutShortIn: step.cutShortIn,
    needsSlot: step.needsSlot ?? false,
    expired: done && expired,
    strays: observed.strays.map(({ instance }) => instance.name),
    wakeAt: earliest(step.wakeAt, cleaning.wakeAt, done && !expired ? expiresAt : undefined),
  };
}

function stepOf(job: CiJob, observed: Observed, now: number, patience: Patience): Step {
  if (isFinished(job)) return {};
  if (isTrue(job.status?.conditions, 'Admitted')) return planAttempt(job, observed, now, patience);
  const reason = calledOff(job);
  if (reason) {
    return {
      verdict: {
        passed: false,
        class: 'Cancelled',
        reason,
        message: 'the job was cancelled before it started',
      },
    };
  }
  const fault = specFault(job);
  return fault ? { verdict: fault } : planQueue(job, observed, now, patience);
}

function earliest(...times: (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}
