import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  bytesCame,
  goesOn,
  heldUp,
  readBegun,
  readEndsAt,
  type ReadBudget,
} from '../../../controller/incus/read-budget.ts';

const budget: ReadBudget = { longestMs: 300_000, graceMs: 30_000, leastBytesPerSecond: 16 * 1024 };

/** How long a guest that sends these pieces keeps a read, in milliseconds. */
function lasts(pieces: readonly { after: number; bytes: number }[]): { ms: number; bytes: number } {
  let progress = readBegun(budget, 0);
  let now = 0;
  let total = 0;
  for (const { after, bytes } of pieces) {
    if (now + after >= readEndsAt(budget, progress)) break;
    now += after;
    total += bytes;
    progress = bytesCame(budget, progress, bytes, now);
  }
  return { ms: readEndsAt(budget, progress), bytes: total };
}

it('a guest that sends nothing keeps a read for the grace', () => {
  expect(lasts([])).toEqual({ ms: budget.graceMs, bytes: 0 });
});

it('a guest that sends 32 KiB every twenty seconds keeps it hardly longer', () => {
  const drips = Array.from({ length: 100 }, () => ({ after: 20_000, bytes: 32 * 1024 }));
  expect(lasts(drips).ms).toBeLessThan(40_000);
});

it('one that sends enough is heard to its end, up to the longest time', () => {
  const enough = Array.from({ length: 1000 }, () => ({ after: 1_000, bytes: 16 * 1024 }));
  expect(lasts(enough).ms).toBe(budget.longestMs);
});

it('one whose reader does not take what it sent has as much time afterwards as it had before', () => {
  const begun = readBegun(budget, 0);
  const held = heldUp(heldUp(begun, 10_000), 20_000);
  expect(readEndsAt(budget, held)).toBe(Number.POSITIVE_INFINITY);
  expect(readEndsAt(budget, goesOn(held, 3_600_000))).toBe(3_590_000 + budget.graceMs);
  expect(goesOn(begun, 10_000)).toEqual(begun);
});

it('whatever a guest sends, and when: it pays for its time at the least rate, is never silent for longer than the grace, and never keeps a read for longer than the longest time', () => {
  const piece = fc.record({ after: fc.nat(40_000), bytes: fc.nat(2 ** 20) });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 100 }), (pieces) => {
      const { ms, bytes } = lasts(pieces);
      const paid = (bytes / budget.leastBytesPerSecond) * 1000 + budget.graceMs;
      expect(ms).toBeLessThanOrEqual(Math.min(budget.longestMs, paid));
      expect(lasts([...pieces, { after: budget.graceMs, bytes: 2 ** 30 }]).ms).toBe(ms);
    }),
  );
});
