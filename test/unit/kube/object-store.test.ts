import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ObjectStore } from '../../../controller/kube/object-store.ts';

const object = (name: string, uid: string, resourceVersion: string) => ({
  metadata: { name, namespace: 'ci', uid, resourceVersion },
});

function bench() {
  const changes: string[] = [];
  const show = (one?: { metadata: { uid: string; resourceVersion?: string | undefined } }) =>
    one ? `${one.metadata.uid}@${one.metadata.resourceVersion ?? ''}` : 'none';
  const store = new ObjectStore<ReturnType<typeof object>>(
    (key, before, after) => changes.push(`${key}: ${show(before)} -> ${show(after)}`),
    (error) => {
      throw error;
    },
  );
  return { store, changes };
}

describe('the object store', () => {
  it('tells of additions, updates and deletions', () => {
    const { store, changes } = bench();
    store.put(object('a', 'u1', '1'));
    store.put(object('a', 'u1', '2'));
    store.remove('ci/a');
    expect(changes).toEqual(['ci/a: none -> u1@1', 'ci/a: u1@1 -> u1@2', 'ci/a: u1@2 -> none']);
    expect(store.size).toBe(0);
  });

  it('tells nothing of what has not changed, or was never there', () => {
    const { store, changes } = bench();
    store.put(object('a', 'u1', '1'));
    store.put(object('a', 'u1', '1'));
    store.remove('ci/b');
    expect(changes).toHaveLength(1);
  });

  it('takes the same name with another uid for another object', () => {
    const { store, changes } = bench();
    store.put(object('a', 'u1', '1'));
    store.put(object('a', 'u2', '9'));
    expect(changes.slice(1)).toEqual(['ci/a: u1@1 -> none', 'ci/a: none -> u2@9']);
  });

  it('tells enough to follow it, whatever happens', () => {
    const step = fc.record({
      name: fc.constantFrom('a', 'b', 'c'),
      uid: fc.constantFrom('u1', 'u2'),
      version: fc.integer({ min: 1, max: 3 }),
      do: fc.constantFrom('put', 'remove', 'keepOnly'),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const copy = new Map<string, unknown>();
        const store = new ObjectStore<ReturnType<typeof object>>(
          (key, before, after) => {
            expect(copy.get(key)).toBe(before);
            expect(before ?? after).toBeDefined();
            if (before && after) expect(before.metadata.uid).toBe(after.metadata.uid);
            if (after) copy.set(key, after);
            else copy.delete(key);
          },
          (error) => {
            throw error;
          },
        );
        for (const one of steps) {
          if (one.do === 'put') store.put(object(one.name, one.uid, `${one.version}`));
          else if (one.do === 'remove') store.remove(`ci/${one.name}`);
          else store.keepOnly(new Set([`ci/${one.name}`]));
          expect([...copy.values()]).toEqual([...store.values()]);
        }
      }),
    );
  });
});
