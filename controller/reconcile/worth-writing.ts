import { findCondition } from '../api/conditions.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';

/** A boot that takes longer than this is shown, at the price of a write; in milliseconds. */
const longBoot = 15_000;
/** The least time between two writes that only tell a new place in the queue; in milliseconds. */
const queueInterval = 60_000;

/**
 * Whether a status must be written now. Every write costs the API server, so steps that pass quickly travel with the
 * next one that matters. A job that does not wait takes three: admitted, running, finished.
 */
export function worthWriting(stored: CiJobStatus | undefined, planned: CiJobStatus, now: number): boolean {
  if (!stored?.phase) return true;
  const moved =
    stored.host !== planned.host ||
    stored.attempt !== planned.attempt ||
    stored.observedGeneration !== planned.observedGeneration;
  if (
    moved ||
    ['Admitted', 'RunnerStarted', 'InstanceDeleted', 'Complete', 'Failed'].some((type) =>
      turned(stored, planned, type),
    )
  ) {
    return true;
  }
  // Host out of sight, or back: a phase is no news here, only what stands in its way.
  const [before, after] = [stored, planned].map((status) => findCondition(status.conditions, 'Ready'));
  if ((before?.status === 'Unknown') !== (after?.status === 'Unknown')) return true;
  if (planned.phase === 'Booting' && stored.phase !== 'Booting') {
    const since = planned.timings?.at(-1)?.startedAt;
    return since !== undefined && now - Date.parse(since) >= longBoot;
  }
  return placeMoved(stored, planned, now);
}

function turned(stored: CiJobStatus, planned: CiJobStatus, type: string): boolean {
  const before = findCondition(stored.conditions, type);
  const after = findCondition(planned.conditions, type);
  return before?.status !== after?.status || before?.reason !== after?.reason;
}

/** Whether the place in the queue has changed, and was last told long enough ago. */
function placeMoved(stored: CiJobStatus, planned: CiJobStatus, now: number): boolean {
  const before = findCondition(stored.conditions, 'Admitted');
  const after = findCondition(planned.conditions, 'Admitted');
  if (planned.phase !== 'Pending' || before?.message === after?.message) return false;
  const told = Math.max(0, ...(stored.timings ?? []).map((timing) => Date.parse(timing.startedAt)));
  return Math.floor((now - told) / queueInterval) > 0 && before !== undefined;
}
