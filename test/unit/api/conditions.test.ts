import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  Condition,
  dropConditions,
  findCondition,
  isTrue,
  setCondition,
  type ConditionStatus,
} from '../../../controller/api/conditions.ts';

const order = ['Admitted', 'Started', 'Ready'];
const t0 = '2026-01-01T00:00:00Z';
const t1 = '2026-01-01T00:00:01Z';
const claim = (status: ConditionStatus, reason = 'R') => ({ status, reason, message: 'm' });

describe('setCondition', () => {
  test('moves lastTransitionTime when the status changes', () => {
    const before = setCondition([], order, 'Ready', claim('False'), 1, t0);
    const [ready] = setCondition(before, order, 'Ready', claim('True'), 2, t1);
    expect(ready).toMatchObject({ status: 'True', lastTransitionTime: t1, observedGeneration: 2 });
  });

  test('keeps lastTransitionTime when only reason, message or generation change', () => {
    const before = setCondition([], order, 'Ready', claim('False', 'Waiting'), 1, t0);
    const [ready] = setCondition(before, order, 'Ready', claim('False', 'Working'), 2, t1);
    expect(ready).toMatchObject({ reason: 'Working', lastTransitionTime: t0, observedGeneration: 2 });
  });

  test('lists types in their order whatever the order of setting, and unknown ones last', () => {
    const conditions = ['Foreign', 'Ready', 'Admitted', 'Started'].reduce<Condition[]>(
      (list, type) => setCondition(list, order, type, claim('True'), 1, t0),
      [],
    );
    expect(conditions.map(({ type }) => type)).toEqual(['Admitted', 'Started', 'Ready', 'Foreign']);
  });

  test('changes nothing that it was given', () => {
    const before = Object.freeze(setCondition([], order, 'Ready', claim('False'), 1, t0).map(Object.freeze));
    expect(() => setCondition(before as Condition[], order, 'Ready', claim('True'), 1, t1)).not.toThrow();
  });

  test('cuts a message that the API server would refuse', () => {
    const long = { ...claim('False'), message: 'x'.repeat(40_000) };
    const [ready] = setCondition([], order, 'Ready', long, 1, t0);
    expect(Condition.safeParse(ready).success).toBe(true);
  });

  test('is the same the second time, at any later hour', () => {
    const claims = fc.tuple(
      fc.constantFrom(...order),
      fc.constantFrom<ConditionStatus[]>('True', 'False', 'Unknown'),
    );
    fc.assert(
      fc.property(fc.array(claims), claims, (earlier, [type, status]) => {
        const set = (list: Condition[], at: string) => setCondition(list, order, type, claim(status), 1, at);
        const before = earlier.reduce<Condition[]>(
          (list, [t, s]) => setCondition(list, order, t, claim(s), 1, t0),
          [],
        );
        const once = set(before, t1);
        expect(set(once, '2027-01-01T00:00:00Z')).toEqual(once);
      }),
    );
  });
});

test('conditions are found, judged and dropped by type', () => {
  const conditions = setCondition([], order, 'Ready', claim('True'), 1, t0);
  expect(findCondition(conditions, 'Ready')?.reason).toBe('R');
  expect(findCondition(undefined, 'Ready')).toBeUndefined();
  expect(isTrue(conditions, 'Ready')).toBe(true);
  expect(isTrue(conditions, 'Started')).toBe(false);
  expect(dropConditions(conditions, 'Ready')).toEqual([]);
  expect(dropConditions(conditions, 'Started')).toEqual(conditions);
});
