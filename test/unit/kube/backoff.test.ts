import { describe, expect, it } from 'vitest';
import { Backoff } from '../../../controller/kube/backoff.ts';

const limits = { baseMs: 100, maxMs: 1000 };

describe('the backoff', () => {
  it('doubles up to its maximum', () => {
    const backoff = new Backoff(limits, () => 1);
    expect([1, 2, 3, 4, 5, 6].map(() => backoff.next())).toEqual([100, 200, 400, 800, 1000, 1000]);
  });

  it('never waits less than half of it', () => {
    const backoff = new Backoff(limits, () => 0);
    expect([1, 2, 3].map(() => backoff.next())).toEqual([50, 100, 200]);
  });

  it('begins anew after a success', () => {
    const backoff = new Backoff(limits, () => 1);
    backoff.next();
    backoff.next();
    expect(backoff.failures).toBe(2);
    backoff.reset();
    expect(backoff.next()).toBe(100);
  });

  it('stays at its maximum for ever', () => {
    const backoff = new Backoff(limits, () => 1);
    for (let i = 0; i < 5000; i++) backoff.next();
    expect(backoff.next()).toBe(1000);
  });
});
