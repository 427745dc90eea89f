import { findCondition } from '../api/conditions.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';

/** A boot that takes longer than this is shown, at the price of a write; in milliseconds. */
const longBoot = 15_000;

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
  // The plan lets a place stand for its time (queue.ts).
  return planned.phase === 'Pending' && stored.queue?.asOf !== planned.queue?.asOf;
}

function turned(stored: CiJobStatus, planned: CiJobStatus, type: string): boolean {
  const before = findCondition(stored.conditions, type);
  const after = findCondition(planned.conditions, type);
  return before?.status !== after?.status || before?.reason !== after?.reason;
}
