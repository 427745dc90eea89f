import { describe, expect, it } from 'vitest';
import { EventLimiter } from '../../../controller/kube/event-limiter.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/** How many of `count` Events may be written. */
const written = (limiter: EventLimiter, uid: string | ((index: number) => string), count: number) =>
  Array.from({ length: count }, (_, index) =>
    limiter.allows(typeof uid === 'string' ? uid : uid(index)),
  ).filter(Boolean).length;

describe('the limit on Events', () => {
  it('is 25 at once for one object, then one in five minutes', () => {
    const clock = new ManualClock();
    const limiter = new EventLimiter(clock);
    expect(written(limiter, 'a', 100)).toBe(25);
    clock.advance(299_999);
    expect(written(limiter, 'a', 1)).toBe(0);
    clock.advance(1);
    expect(written(limiter, 'a', 2)).toBe(1);
    // What was not used is saved up, and no more than a burst of it.
    clock.advance(1e10);
    expect(written(limiter, 'a', 100)).toBe(25);
  });

  it('is 200 at once for all, then ten in a second', () => {
    const clock = new ManualClock();
    const limiter = new EventLimiter(clock);
    const another = (index: number) => `object ${clock.now()} ${index}`;
    expect(written(limiter, another, 300)).toBe(200);
    clock.advance(1000);
    expect(written(limiter, another, 300)).toBe(10);
  });

  it('costs an object nothing where the other limit stood in the way', () => {
    const clock = new ManualClock();
    const limiter = new EventLimiter(clock);
    written(limiter, (index) => `object ${index}`, 200);
    expect(written(limiter, 'a', 50)).toBe(0);
    clock.advance(100_000);
    expect(written(limiter, 'a', 50)).toBe(25);
  });

  it('forgets the object seen longest ago, of more than four thousand', () => {
    const clock = new ManualClock();
    const limiter = new EventLimiter(clock);
    expect([written(limiter, 'old', 25), written(limiter, 'seen', 25)]).toEqual([25, 25]);
    written(limiter, (index) => `object ${index}`, 4094);
    limiter.allows('seen');
    limiter.allows('one more');
    clock.advance(20_000);
    expect([written(limiter, 'seen', 1), written(limiter, 'old', 1)]).toEqual([0, 1]);
  });
});
