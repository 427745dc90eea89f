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

/** When the read must be given up if nothing more comes. */
export function readEndsAt({ longestMs }: ReadBudget, { startedAt, paidUntil }: ReadProgress): number {
  return Math.min(startedAt + longestMs, paidUntil);
}
