import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  FairQueue,
  nextInTurn,
  sharesOf,
  type Shares,
  type Turn,
} from '../../../controller/incus/fair-queue.ts';

const short = (group: string, member = group): Turn => ({ group, member });
const long = (group: string, member = group): Turn => ({ group, member, long: true });
const owner = short;

describe('who is next', () => {
  it('is the one who came first, of those whose group has the fewest places', () => {
    const waiting = [owner('a', 'a2'), owner('b', 'b1'), owner('c', 'c1')];
    expect(nextInTurn(waiting, [owner('a', 'a1')], sharesOf(8))).toBe(waiting[1]);
    expect(nextInTurn(waiting, [], sharesOf(8))).toBe(waiting[0]);
  });

  it('is nobody when all places are taken', () => {
    expect(nextInTurn([short('b')], [short('a'), short('c')], sharesOf(2))).toBeUndefined();
  });

  it('with what is short is also the only group that asks, where there are but two places', () => {
    const next = short('a', 'a2');
    expect(nextInTurn([next], [long('a', 'a1')], sharesOf(2))).toBe(next);
    expect(nextInTurn([next, short('b')], [long('a', 'a1')], sharesOf(2))).toMatchObject({ group: 'b' });
  });

  it('with what is long leaves room to others, also to those that do not ask yet', () => {
    expect(nextInTurn([long('a', 'a2')], [long('a', 'a1')], sharesOf(2))).toBeUndefined();
    expect(nextInTurn([long('b')], [long('a', 'a1')], sharesOf(2))).toMatchObject({ group: 'b' });
    // However much that is short goes on: it is soon over, and must not keep what is long from its turn for ever.
    expect(nextInTurn([long('a', 'a2')], [short('a', 'a1')], sharesOf(2))).toMatchObject({ group: 'a' });
  });

  const one = fc.record({
    group: fc.constantFrom('a', 'b', 'c'),
    name: fc.constantFrom('1', '2', '3'),
    long: fc.boolean(),
  });
  const turns = fc.array(
    one.map(({ group, name, long: slow }) => ({ group, member: group + name, long: slow })),
  );
  const shares = fc
    .record({ all: fc.integer({ min: 1, max: 9 }), kept: fc.boolean() })
    .map(({ all, kept }) => sharesOf(all, kept && all > 2 ? 1 : 0));

  /** Gives out places until nobody may have one more. */
  function filled({ all, ...rest }: Shares, waiting: readonly Turn[]): { running: Turn[]; left: Turn[] } {
    const running: Turn[] = [];
    const left = [...waiting];
    const next = () => nextInTurn(left, running, { all, ...rest });
    for (let one = next(); one; one = next()) running.push(...left.splice(left.indexOf(one), 1));
    return { running, left };
  }

  it('never has more than its share of what is long, and leaves the place that is kept for what is short', () => {
    fc.assert(
      fc.property(shares, turns, (each, waiting) => {
        const { running } = filled(each, waiting);
        const slow = running.filter((turn) => turn.long);
        expect(running.length).toBeLessThanOrEqual(each.all);
        expect(slow.length).toBeLessThanOrEqual(each.all - each.short);
        for (const { group, member } of slow) {
          expect(slow.filter((turn) => turn.group === group).length).toBeLessThanOrEqual(each.group);
          expect(slow.filter((turn) => turn.member === member).length).toBeLessThanOrEqual(each.member);
        }
      }),
    );
  });

  it('leaves no place empty that what is short may have, and the kept one only to those with less', () => {
    fc.assert(
      fc.property(shares, turns, (each, waiting) => {
        const { running, left } = filled(each, waiting);
        const shorts = left.filter((turn) => !turn.long);
        if (running.length < each.all - each.short) expect(shorts).toEqual([]);
        if (running.length === each.all) return;
        for (const { group } of shorts)
          expect(running.filter((turn) => turn.group === group).length).toBeGreaterThanOrEqual(each.group);
      }),
    );
  });

  it('has more places than another group only while that one does not ask for what it may have', () => {
    fc.assert(
      fc.property(shares, turns, turns, (each, running, waiting) => {
        const next = nextInTurn(waiting, running, each);
        if (!next) return;
        const held = (name: string) => running.filter(({ group }) => group === name).length;
        for (const other of waiting.filter((turn) => !turn.long))
          if (nextInTurn([other], running, each))
            expect(held(next.group)).toBeLessThanOrEqual(held(other.group));
      }),
    );
  });
});

describe('a queue', () => {
  it('runs what waits as soon as it may, whatever became of what ran before', async () => {
    const queue = new FairQueue(sharesOf(1));
    const first = Promise.withResolvers<string>();
    const one = queue.add(owner('a'), () => first.promise);
    const two = queue.add(owner('b'), () => Promise.resolve('two'));
    first.reject(new Error('broken'));
    await expect(one).rejects.toThrow('broken');
    await expect(two).resolves.toBe('two');
  });

  it('lets go of what is called off while it waits, and of nothing that runs', async () => {
    const queue = new FairQueue(sharesOf(1));
    const stop = new AbortController();
    const first = Promise.withResolvers<string>();
    let ran = false;
    const one = queue.add(owner('a'), () => first.promise, stop.signal);
    const two = queue.add(owner('b'), () => Promise.resolve((ran = true)), stop.signal);
    stop.abort(new Error('called off'));
    await expect(two).rejects.toThrow('called off');
    first.resolve('one');
    await expect(one).resolves.toBe('one');
    await expect(queue.add(owner('c'), () => Promise.resolve('three'))).resolves.toBe('three');
    await expect(queue.add(owner('c'), () => Promise.resolve('four'), stop.signal)).rejects.toThrow();
    expect(ran).toBe(false);
  });
});
