import { describe, expect, it } from 'vitest';
import { Breaker } from '../../../controller/hosts/breaker.ts';

const now = Date.parse('2026-01-01T00:00:00Z');
/** One that has just been tripped by three failures, without jitter: its pause is 15 s. */
function tripped(): Breaker {
  const breaker = new Breaker();
  for (const why of ['one', 'two']) breaker.failed(why, now, 1);
  breaker.failed('the pool is full', now, 1);
  return breaker;
}

describe('the breaker of a host', () => {
  it('tolerates two failed creations, and any number of them that are not in a row', () => {
    const breaker = new Breaker();
    for (let round = 0; round < 5; round += 1) {
      expect(breaker.failed('', now, 1)).toBe(0);
      expect(breaker.failed('', now, 1)).toBe(0);
      expect(breaker.refusal(now)).toBeUndefined();
      expect(breaker.succeeded()).toBe(false);
    }
  });

  it('keeps jobs away after the third, for a while, and says why', () => {
    const breaker = tripped();
    expect(breaker.refusal(now + 14_999)).toContain('failed 3 times in a row: the pool is full');
    expect(breaker.refusal(now + 15_000)).toBeUndefined();
  });

  it('lets one job through after the pause, whose creation decides', () => {
    const breaker = tripped();
    breaker.given(now + 15_000, 1);
    expect(breaker.refusal(now + 15_001)).toBeDefined();
    expect(breaker.succeeded()).toBe(true);
    expect(breaker.refusal(now + 15_001)).toBeUndefined();
  });

  it('lets another one through when nothing came of that one', () => {
    const breaker = tripped();
    breaker.given(now + 15_000, 1);
    expect(breaker.refusal(now + 30_000)).toBeUndefined();
  });

  it('doubles the pause with each trial that fails, up to five minutes, and shortens it by chance', () => {
    const breaker = tripped();
    const pauses = Array.from({ length: 6 }, () => breaker.failed('', now, 1));
    expect(pauses).toEqual([30_000, 60_000, 120_000, 240_000, 300_000, 300_000]);
    expect(breaker.failed('', now, 0)).toBe(225_000);
  });
});
