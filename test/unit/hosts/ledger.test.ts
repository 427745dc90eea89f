import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Ledger, type Slot, type Usage } from '../../../controller/hosts/ledger.ts';

const hosts = ['h1', 'h2'];
const namespaces = ['a', 'b', 'c'];
const slot: fc.Arbitrary<Slot> = fc.record({
  host: fc.constantFrom(...hosts),
  namespace: fc.constantFrom(...namespaces),
  cpu: fc.integer({ min: 1, max: 64 }),
  memoryBytes: fc.integer({ min: 1, max: 2 ** 40 }),
});
const change = fc.record({ instance: fc.constantFrom('i', 'j', 'k', 'l'), slot: fc.option(slot) });

/** The same from the slots themselves. */
function sum(slots: readonly Slot[]): Usage {
  return slots.reduce(
    (total, { cpu, memoryBytes }) => ({
      instances: total.instances + 1,
      cpu: total.cpu + cpu,
      memoryBytes: total.memoryBytes + memoryBytes,
    }),
    { instances: 0, cpu: 0, memoryBytes: 0 },
  );
}

describe('the ledger of slots', () => {
  it('knows after every change what a sum over all slots would come to', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
        const ledger = new Ledger();
        const model = new Map<string, Slot>();
        for (const { instance, slot: taken } of changes) {
          if (taken) ledger.take(instance, taken);
          else expect(ledger.release(instance)).toBe(model.has(instance));
          if (taken) model.set(instance, taken);
          else model.delete(instance);
          const slots = [...model.values()];
          for (const host of hosts)
            expect(ledger.usedOn(host)).toEqual(sum(slots.filter((one) => one.host === host)));
          for (const namespace of namespaces)
            expect(ledger.usedBy(namespace)).toEqual(sum(slots.filter((one) => one.namespace === namespace)));
        }
      }),
    );
  });
});
