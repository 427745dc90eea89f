/**
 * How slowly an answer may come whose bytes a guest decides. A guest can serve its files as slowly as it likes (by FUSE,
 * for example), so a limit on silence alone never ends such a read.
 */
export interface ReadBudget {
  /** The whole answer must be there by then, in milliseconds after the request. */
  longestMs: number;
  /** How long the answer may be silent, and how far it may fall behind its least rate, in milliseconds. */
  graceMs: number;
  leastBytesPerSecond: number;
}

/** How far a read has come. Times are in milliseconds since the epoch. */
export interface ReadProgress {
  startedAt: number;
  /** The bytes so far allow the read to go on until then. */
  paidUntil: number;
  /** Since when what came waits to be taken; undefined when it is the guest's turn. */
  heldSince?: number | undefined;
}

export function readBegun({ graceMs }: ReadBudget, now: number): ReadProgress {
  return { startedAt: now, paidUntil: now + graceMs };
}

/** The progress after more bytes have come. */
export function bytesCame(
  { graceMs, leastBytesPerSecond }: ReadBudget,
  { startedAt, paidUntil }: ReadProgress,
  bytes: number,
  now: number,
): ReadProgress {
  const earned = (bytes / leastBytesPerSecond) * 1000;
  return { startedAt, paidUntil: Math.min(paidUntil + earned, now + graceMs) };
}

/** The progress from when something waits to be taken: the guest has done its part, and its time stands still. */
export function heldUp(progress: ReadProgress, now: number): ReadProgress {
  return { ...progress, heldSince: progress.heldSince ?? now };
}

/** The progress after all that waited was taken. */
export function goesOn({ startedAt, paidUntil, heldSince }: ReadProgress, now: number): ReadProgress {
  const held = now - (heldSince ?? now);
  return { startedAt: startedAt + held, paidUntil: paidUntil + held };
}

/** When the read must be given up if nothing more comes. Never, while it is held up. */
export function readEndsAt(
  { longestMs }: ReadBudget,
  { startedAt, paidUntil, heldSince }: ReadProgress,
): number {
  if (heldSince !== undefined) return Number.POSITIVE_INFINITY;
  return Math.min(startedAt + longestMs, paidUntil);
}
