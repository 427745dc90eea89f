import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nextToEvict, usedByNamespace, type Kept } from '../../../controller/logs/eviction.ts';

let made = 0;
function kept(namespace: string, bytes: number, part: Partial<Kept> = {}): Kept {
  made += 1;
  return { namespace, bytes, uid: `uid-${made}`, writtenAt: made, live: false, read: false, ...part };
}
const writer = (namespace: string) => ({ namespace, uid: 'writer' });

describe('the log that is evicted', () => {
  it('is the oldest of the namespace that uses the most, though others have older ones', () => {
    const logs = [kept('quiet', 10), kept('flood', 30), kept('flood', 30)];
    expect(nextToEvict(logs, writer('quiet'))).toBe(logs[1]);
    expect(nextToEvict(logs, writer('new'))).toBe(logs[1]);
    expect(nextToEvict(logs, writer('flood'))).toBe(logs[1]);
  });

  it('is none of a namespace that uses less than the one that writes', () => {
    const logs = [kept('quiet', 10), kept('flood', 30, { live: true })];
    expect(nextToEvict(logs, writer('flood'))).toBeUndefined();
    expect(nextToEvict(logs, writer('new'))).toBe(logs[0]);
    expect(nextToEvict(logs, writer('quiet'))).toBe(logs[0]);
  });

  it('is none that is written, and one that is read only after all else of its namespace', () => {
    const logs = [kept('a', 10, { live: true }), kept('a', 10, { read: true }), kept('a', 10)];
    expect(nextToEvict(logs, writer('b'))).toBe(logs[2]);
    // To have one's logs read does not keep them at the cost of others.
    const read = [kept('flood', 30, { read: true }), kept('quiet', 10)];
    expect(nextToEvict(read, writer('quiet'))).toBe(read[0]);
  });

  it('is nothing of the job that writes, and nothing where nothing is left', () => {
    expect(nextToEvict([kept('a', 10, { uid: 'writer' }), kept('a', 0)], writer('a'))).toBeUndefined();
    expect(nextToEvict<Kept>([], writer('a'))).toBeUndefined();
  });

  const one = fc.record({
    namespace: fc.constantFrom('a', 'b', 'c', 'd'),
    bytes: fc.nat(100),
    live: fc.boolean(),
    read: fc.boolean(),
    writtenAt: fc.nat(100),
  });
  const all = fc
    .array(one, { maxLength: 20 })
    .map((logs) => logs.map((log, index): Kept => ({ ...log, uid: `uid-${index}` })));

  it('is never one of a namespace below its fair share while another is above and has one to give', () => {
    fc.assert(
      fc.property(all, fc.constantFrom('a', 'b', 'c', 'd'), (logs, namespace) => {
        const evicted = nextToEvict(logs, writer(namespace));
        if (!evicted) return;
        const used = usedByNamespace(logs);
        const share = [...used.values()].reduce((sum, bytes) => sum + bytes, 0) / used.size;
        const use = (name: string) => used.get(name) ?? 0;
        const couldGive = ({ live, bytes, namespace: other }: Kept) =>
          !live && bytes > 0 && use(other) > share;
        if (use(evicted.namespace) < share) expect(logs.filter(couldGive)).toEqual([]);
        expect(evicted.live).toBe(false);
      }),
    );
  });

  it('goes for another namespace only from one that uses more', () => {
    fc.assert(
      fc.property(all, fc.constantFrom('a', 'b', 'c', 'd'), (logs, namespace) => {
        const evicted = nextToEvict(logs, writer(namespace));
        if (!evicted || evicted.namespace === namespace) return;
        const used = usedByNamespace(logs);
        expect(used.get(evicted.namespace)).toBeGreaterThan(used.get(namespace) ?? 0);
      }),
    );
  });
});
