import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FairQueue, nextInTurn, sharesOf, type Owner } from '../../../controller/incus/fair-queue.ts';

const owner = (group: string, member = group): Owner => ({ group, member });

describe('who is next', () => {
  it('is the one who came first, of those whose group has the fewest places', () => {
    const waiting = [owner('a', 'a2'), owner('b', 'b1'), owner('c', 'c1')];
    expect(nextInTurn(waiting, [owner('a', 'a1')], sharesOf(8))).toBe(waiting[1]);
    expect(nextInTurn(waiting, [], sharesOf(8))).toBe(waiting[0]);
  });

  it('is nobody when all places are taken, or what is left is for others', () => {
    expect(nextInTurn([owner('b')], [owner('a'), owner('c')], sharesOf(2))).toBeUndefined();
    expect(nextInTurn([owner('a', 'a2')], [owner('a', 'a1')], sharesOf(2))).toBeUndefined();
  });

  it('never gives a group or a member more than its share, and leaves no place free that somebody may have', () => {
    const one = fc.record({ group: fc.constantFrom('a', 'b', 'c'), member: fc.constantFrom('1', '2', '3') });
    const owners = fc.array(one.map(({ group, member }) => owner(group, `${group}${member}`)));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), owners, (all, waiting) => {
        const shares = sharesOf(all);
        const running: Owner[] = [];
        const left = [...waiting];
        for (let next = nextInTurn(left, running, shares); next; next = nextInTurn(left, running, shares)) {
          left.splice(left.indexOf(next), 1);
          running.push(next);
        }
        const held = (key: 'group' | 'member', { [key]: name }: Owner) =>
          running.filter((other) => other[key] === name).length;
        expect(running.length).toBeLessThanOrEqual(all);
        for (const each of running) {
          expect(held('group', each)).toBeLessThanOrEqual(shares.group);
          expect(held('member', each)).toBeLessThanOrEqual(shares.member);
        }
        if (running.length < all)
          for (const each of left)
            expect(held('group', each) === shares.group || held('member', each) === shares.member).toBe(true);
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
