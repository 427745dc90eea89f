import { findCondition } from '../api/conditions.ts';
import type { CiJob } from '../api/cijob.ts';
import { instanceCleanupFinalizer } from '../api/meta.ts';
import { heldUntil } from '../reconcile/clean-up.ts';

/** What alerts ask about jobs, beyond how many there are. Times are in seconds, 0 where there is no such job. */
export interface JobGauges {
  /** Age of the oldest job that waits for a slot; suspended jobs wait for nobody. */
  oldestWaiting: number;
  /** Jobs that have held their slot for longer than their own limits allow. */
  overdue: number;
  /** How long the slowest of the jobs that are over has been waiting for its instance to go. */
  oldestCleanUp: number;
}

/** On top of a job's own limits: making its instance, reading its result, and a host that is away for a moment. */
const slack = 15 * 60_000;

/** @param now Milliseconds since the epoch. */
export function jobGauges(jobs: readonly CiJob[], now: number): JobGauges {
  const gauges: JobGauges = { oldestWaiting: 0, overdue: 0, oldestCleanUp: 0 };
  for (const job of jobs) {
    const { metadata, spec, status } = job;
    if (status?.completionTime !== undefined) {
      if (!metadata.finalizers?.includes(instanceCleanupFinalizer)) continue;
      gauges.oldestCleanUp = Math.max(gauges.oldestCleanUp, (now - cleanUpDue(job)) / 1000);
      continue;
    }
    // A job that waits for its next attempt waits since the last one was lost, not since it was created.
    const admitted = findCondition(status?.conditions, 'Admitted');
    const since = Date.parse(admitted?.lastTransitionTime ?? metadata.creationTimestamp);
    if (admitted?.status === 'True') {
      const limit = (spec.bootTimeoutSeconds + spec.timeoutSeconds) * 1000 + slack;
      if (now > since + limit) gauges.overdue += 1;
    } else if (!spec.suspend) {
      const queuedAt = status?.queuedAt === undefined ? since : Date.parse(status.queuedAt);
      gauges.oldestWaiting = Math.max(gauges.oldestWaiting, (now - queuedAt) / 1000);
    }
  }
  return gauges;
}

/** From when on the instance of a finished job should be going; a failed one may be held for debugging. */
function cleanUpDue(job: CiJob): number {
  const { metadata, status = {} } = job;
  const completed = Date.parse(status.completionTime ?? '');
  if (metadata.deletionTimestamp !== undefined) {
    return Math.max(completed, Date.parse(metadata.deletionTimestamp));
  }
  return Math.max(completed, heldUntil(job, status) ?? 0);
}
