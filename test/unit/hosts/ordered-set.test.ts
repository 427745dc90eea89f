import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OrderedSet } from '../../../controller/hosts/ordered-set.ts';

const number = fc.nat(60);
const change = fc.record({ add: fc.boolean(), item: number });

describe('an ordered set', () => {
  it('holds what was added and not deleted, once, in order, and knows every place', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 200 }), number, (changes, probe) => {
        const set = new OrderedSet<number>((a, b) => a - b);
        const model = new Set<number>();
        for (const { add, item } of changes) {
          if (add) set.add(item);
          else set.delete(item);
          if (add) model.add(item);
          else model.delete(item);
        }
        const expected = [...model].sort((a, b) => a - b);
        expect([...set]).toEqual(expected);
        expect([set.size, set.first]).toEqual([expected.length, expected[0]]);
        expected.forEach((item, place) => {
          expect([set.at(place), set.countBefore(item)]).toEqual([item, place]);
        });
        expect(set.at(expected.length)).toBeUndefined();
        expect(set.countBefore(probe)).toBe(expected.filter((item) => item < probe).length);
      }),
    );
  });

  it('puts an item in the place of one that counts as the same', () => {
    const set = new OrderedSet<{ rank: number; what: string }>((a, b) => a.rank - b.rank);
    set.add({ rank: 1, what: 'old' });
    set.add({ rank: 1, what: 'new' });
    expect([...set]).toEqual([{ rank: 1, what: 'new' }]);
  });

  it.each([
    ['in order', (index: number) => index],
    ['in reverse', (index: number) => -index],
    ['from both ends', (index: number) => (index % 2 === 0 ? index : -index)],
  ])('stays in balance with items that come %s: comparisons grow with the logarithm', (_how, item) => {
    const comparisonsFor = (count: number) => {
      let comparisons = 0;
      const set = new OrderedSet<number>((a, b) => {
        comparisons += 1;
        return a - b;
      });
      for (let index = 0; index < count; index += 1) set.add(item(index));
      // Taken from the front, as a queue is.
      for (let index = 0; index < count / 2; index += 1) set.delete(set.first ?? 0);
      comparisons = 0;
      set.countBefore(item(count - 1));
      set.delete(item(count - 1));
      set.add(item(count - 1));
      return comparisons;
    };
    // Height is at most 1 / log2(4/3) times the logarithm of the size.
    const most = (count: number) => 3 * Math.ceil(Math.log2(count / 2 + 1) / Math.log2(4 / 3));
    for (const count of [1_000, 16_000]) expect(comparisonsFor(count)).toBeLessThanOrEqual(most(count));
  });
});
