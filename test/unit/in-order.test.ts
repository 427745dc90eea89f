import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { InOrder, newestOnly } from '../../controller/in-order.ts';

describe('what a source sends', () => {
  it('is taken in order, one piece at a time, whatever becomes of one', async () => {
    const taken: string[] = [];
    const pieces = new InOrder({ pause: () => undefined, resume: () => undefined });
    for (const name of ['a', 'b', 'c']) {
      pieces.take(async () => {
        taken.push(`${name} begins`);
        await turn();
        taken.push(`${name} ends`);
        if (name === 'a') throw new Error('broken');
      });
    }
    await pieces.taken;
    expect(taken).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
  });

  it('never waits in greater number than what one read brings, though the source has no end', async () => {
    let waiting = 0;
    let most = 0;
    let reads = 0;
    const source = {
      pause: () => undefined,
      resume() {
        if (reads === 10) return;
        reads += 1;
        // Each read brings a hundred pieces, as one packet brings many small messages.
        for (let count = 0; count < 100; count += 1) {
          most = Math.max(most, (waiting += 1));
          pieces.take(async () => {
            await turn();
            waiting -= 1;
          });
        }
      },
    };
    const pieces: InOrder = new InOrder(source);
    source.resume();
    while (waiting > 0) await pieces.taken;
    expect(reads).toBe(10);
    expect(most).toBe(100);
  });
});

describe('of values that come faster than they are passed on', () => {
  it('the first and the newest are passed on, one at a time', async () => {
    const passed: number[] = [];
    let next = Promise.withResolvers<undefined>();
    const offer = newestOnly<number>((value) => {
      passed.push(value);
      return next.promise.then(() => undefined);
    });
    for (let value = 0; value < 10_000; value += 1) offer(value);
    expect(passed).toEqual([0]);
    next.resolve(undefined);
    next = Promise.withResolvers();
    await turn();
    expect(passed).toEqual([0, 9_999]);
    next.reject(new Error('lost'));
    next = Promise.withResolvers();
    await turn();
    offer(1);
    expect(passed).toEqual([0, 9_999, 1]);
  });
});
