import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WorkQueue, type WorkQueueOptions } from '../../../controller/reconcile/work-queue.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/** Lets everything that needs no further input happen. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A queue whose processings end when the test says so. */
function bench(options: Partial<WorkQueueOptions> = {}) {
  const clock = new ManualClock();
  const started: string[] = [];
  const running = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const errors: unknown[] = [];
  let twiceAtOnce = false;
  const queue = new WorkQueue({
    clock,
    concurrency: 2,
    process: (key) => {
      started.push(key);
      twiceAtOnce ||= running.has(key);
      return new Promise((resolve, reject) => running.set(key, { resolve, reject }));
    },
    onError: (_key, error) => errors.push(error),
    ...options,
  });
  const end = async (key: string, error?: Error) => {
    const one = running.get(key)!;
    running.delete(key);
    if (error) one.reject(error);
    else one.resolve();
    await settle();
  };
  return { clock, queue, started, running, errors, end, twiceAtOnce: () => twiceAtOnce };
}

describe('the work queue', () => {
  it('processes an added key', async () => {
    const { queue, started } = bench();
    queue.add('a');
    await settle();
    expect(started).toEqual(['a']);
  });

  it('coalesces adds of a waiting key', async () => {
    const { queue, started } = bench();
    queue.add('a');
    queue.add('a');
    await settle();
    expect(started).toEqual(['a']);
  });

  it('processes a key once more, afterwards, when it was added meanwhile', async () => {
    const { queue, started, end } = bench();
    queue.add('a');
    await settle();
    queue.add('a');
    queue.add('a');
    await settle();
    expect(started).toEqual(['a']);
    await end('a');
    expect(started).toEqual(['a', 'a']);
    await end('a');
    expect(started).toEqual(['a', 'a']);
  });

  it('keeps to its concurrency and to the order of the adds', async () => {
    const { queue, started, end } = bench();
    for (const key of ['a', 'b', 'c', 'd']) queue.add(key);
    await settle();
    expect(started).toEqual(['a', 'b']);
    expect(queue.depth).toBe(2);
    await end('b');
    expect(started).toEqual(['a', 'b', 'c']);
  });

  it('adds after a delay, the earliest of several, once', async () => {
    const { queue, started, clock, end } = bench();
    queue.addAfter('a', 1000);
    queue.addAfter('a', 300);
    queue.addAfter('a', 2000);
    clock.advance(299);
    await settle();
    expect(started).toEqual([]);
    clock.advance(1);
    await settle();
    expect(started).toEqual(['a']);
    await end('a');
    clock.advance(10_000);
    await settle();
    expect(started).toEqual(['a']);
  });

  it('adds nothing after a delay that was called off', async () => {
    const { queue, started, clock, end } = bench();
    queue.addAfter('a', 300);
    queue.callOff('a');
    queue.callOff('never added');
    clock.advance(1_000);
    await settle();
    expect(started).toEqual([]);
    queue.addAfter('a', 300);
    clock.advance(300);
    await settle();
    expect(started).toEqual(['a']);
    await end('a');
  });

  it('adds at once when the delay is zero or past', async () => {
    const { queue, started } = bench();
    queue.addAfter('a', -5);
    await settle();
    expect(started).toEqual(['a']);
  });

  it('doubles the delay of a failing key up to the maximum, until it is forgotten', () => {
    const { queue } = bench({ backoff: { baseMs: 100, maxMs: 500 } });
    expect([1, 2, 3, 4, 5].map(() => queue.addRateLimited('a'))).toEqual([100, 200, 400, 500, 500]);
    expect(queue.retries('a')).toBe(5);
    expect(queue.addRateLimited('b')).toBe(100);
    queue.forget('a');
    expect(queue.retries('a')).toBe(0);
    expect(queue.addRateLimited('a')).toBe(100);
  });

  it('never overflows the delay, however often a key fails', () => {
    const { queue } = bench();
    for (let i = 0; i < 5000; i++) queue.addRateLimited('a');
    expect(queue.addRateLimited('a')).toBe(60_000);
  });

  it('retries a key whose processing rejected, and says so', async () => {
    const { queue, started, clock, end, errors } = bench();
    queue.add('a');
    await settle();
    await end('a', new Error('no'));
    expect(errors).toEqual([new Error('no')]);
    expect(started).toEqual(['a']);
    clock.advance(50);
    await settle();
    expect(started).toEqual(['a', 'a']);
  });

  it('waits at shutdown for what is being processed, and starts nothing more', async () => {
    const { queue, started, end, clock } = bench({ concurrency: 1 });
    queue.add('a');
    queue.add('b');
    queue.addAfter('c', 10);
    await settle();
    queue.add('a');
    let down = false;
    const shutDown = queue.shutDown().then(() => (down = true));
    queue.add('d');
    queue.addAfter('e', 10);
    clock.advance(100);
    await settle();
    expect(down).toBe(false);
    await end('a');
    await shutDown;
    expect(started).toEqual(['a']);
    expect(queue.depth).toBe(0);
  });

  it('tells its observer how long keys waited and were worked on', async () => {
    const seen: string[] = [];
    const { queue, clock, end } = bench({
      concurrency: 1,
      observer: {
        added: () => seen.push('added'),
        started: (seconds) => seen.push(`started ${seconds}`),
        finished: (seconds) => seen.push(`finished ${seconds}`),
        retried: () => seen.push('retried'),
      },
    });
    queue.add('a');
    await settle();
    queue.add('b');
    clock.advance(1500);
    expect(queue.unfinishedSeconds).toBe(1.5);
    await end('a');
    await end('b', new Error('no'));
    expect(seen).toEqual([
      'added',
      'started 0',
      'added',
      'finished 1.5',
      'started 1.5',
      'retried',
      'finished 0',
    ]);
    expect(queue.unfinishedSeconds).toBe(0);
  });

  it('loses no wake-up and never doubles a key, in whatever order things happen', async () => {
    const key = fc.constantFrom('a', 'b', 'c', 'd');
    const step = fc.oneof(
      fc.record({ do: fc.constant('add' as const), key }),
      fc.record({ do: fc.constant('addAfter' as const), key, ms: fc.integer({ min: 0, max: 50 }) }),
      fc.record({ do: fc.constant('end' as const), key }),
      fc.record({ do: fc.constant('fail' as const), key }),
      fc.record({ do: fc.constant('advance' as const), key, ms: fc.integer({ min: 1, max: 60 }) }),
      fc.record({ do: fc.constant('settle' as const), key }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const { queue, clock, running, started, end, twiceAtOnce } = bench();
        /** For each key, how many processings had started when it was last asked for. */
        const asked = new Map<string, number>();
        const count = (key: string) => started.filter((one) => one === key).length;
        for (const one of steps) {
          if (one.do === 'add') queue.add(one.key);
          if (one.do === 'addAfter') queue.addAfter(one.key, one.ms);
          if (one.do === 'add' || one.do === 'addAfter') asked.set(one.key, count(one.key));
          if (one.do === 'end' && running.has(one.key)) await end(one.key);
          if (one.do === 'fail' && running.has(one.key)) {
            await end(one.key, new Error('no'));
            asked.set(one.key, count(one.key));
          }
          if (one.do === 'advance') clock.advance(one.ms);
          if (one.do === 'settle') await settle();
          expect(running.size).toBeLessThanOrEqual(2);
          expect(twiceAtOnce()).toBe(false);
        }
        for (let i = 0; i < 30; i++) {
          clock.advance(60_000);
          await settle();
          for (const key of [...running.keys()]) await end(key);
        }
        for (const [key, before] of asked) expect(count(key)).toBeGreaterThan(before);
        expect(queue.depth).toBe(0);
      }),
      { numRuns: 300 },
    );
  });
});
