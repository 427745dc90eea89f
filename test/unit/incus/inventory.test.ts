import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Inventory } from '../../../controller/incus/inventory.ts';
import type { IncusEvent, Operation } from '../../../controller/incus/schemas.ts';

const operation = (id: string, code: number): Operation => ({
  id,
  class: 'task',
  description: '',
  created_at: '2026-01-01T00:00:00Z',
  status: '',
  status_code: code,
  resources: { instances: ['/1.0/instances/i'] },
  metadata: code === 200 ? { return: 7 } : null,
  err: '',
});
const told = (id: string, code: number): IncusEvent => ({
  type: 'operation',
  timestamp: '2026-01-01T00:00:00Z',
  metadata: operation(id, code),
});
const lifecycle = (action: string): IncusEvent => ({
  type: 'lifecycle',
  timestamp: '2026-01-01T00:00:01Z',
  metadata: { action, source: '/1.0/instances/i?project=p' },
});

describe('the inventory', () => {
  it('knows the end of an operation, in whatever order and how often events come', () => {
    const events = [told('o', 103), told('o', 103), told('o', 200), told('o', 200)];
    fc.assert(
      fc.property(fc.shuffledSubarray(events, { minLength: 4 }), (order) => {
        const inventory = new Inventory();
        for (const event of order) inventory.apply(event);
        expect([inventory.isRunning('o'), inventory.isBusy('i'), inventory.ended('o')?.returnCode]).toEqual([
          false,
          false,
          7,
        ]);
      }),
    );
  });

  it('says that something is under way on an instance that is not there yet', () => {
    const inventory = new Inventory();
    inventory.replace([], [operation('o', 103)]);
    expect([inventory.get('i'), inventory.isBusy('i'), inventory.isBusy('j')]).toEqual([
      undefined,
      true,
      false,
    ]);
    inventory.replace([], []);
    expect(inventory.isBusy('i')).toBe(false);
  });

  it('asks to read an instance that it hears of for the first time', () => {
    expect(new Inventory().apply(lifecycle('instance-started'))).toEqual({ instance: 'i', mustRead: true });
  });

  it('forgets what is deleted, and asks nothing about it', () => {
    const inventory = new Inventory();
    inventory.put('i', {
      name: 'i',
      type: 'container',
      status: 'Running',
      config: {},
      devices: {},
      profiles: [],
      last_used_at: '',
    });
    expect(inventory.apply(lifecycle('instance-deleted'))).toEqual({ instance: 'i', mustRead: false });
    expect(inventory.get('i')).toBeUndefined();
  });
});
