import { describe, expect, it, vi } from 'vitest';
import { systemClock, type Clock } from '../../../controller/clock.ts';
import { Watch } from '../../../controller/hosts/watch.ts';
import { Inventory } from '../../../controller/incus/inventory.ts';
import type { IncusEvent, Instance, Operation } from '../../../controller/incus/schemas.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const instance = (name: string): Instance => ({
  name,
  type: 'container',
  status: 'Running',
  config: {},
  devices: {},
  profiles: [],
  last_used_at: '2026-01-01T00:00:00Z',
});
const operation = (id: string, status_code = 103): Operation => ({
  id,
  class: 'task',
  description: '',
  created_at: '2026-01-01T00:00:00Z',
  status: '',
  status_code,
  resources: { instances: ['/1.0/instances/one'] },
  metadata: null,
  err: '',
});
const ended = (id: string): IncusEvent => ({
  type: 'operation',
  timestamp: '2026-01-01T00:00:01Z',
  metadata: operation(id, 200),
});

/** A watch over a server whose answers come when the test says so. */
function watch(inventory = new Inventory(), clock: Clock = systemClock, ask?: () => Promise<Instance>) {
  const list = Promise.withResolvers<Instance[]>();
  const read = Promise.withResolvers<Instance>();
  const changes: (string | undefined)[] = [];
  let givenUp = false;
  const client = {
    instances: () => list.promise,
    operations: () => Promise.resolve([]),
    instance: ask ?? (() => read.promise),
  };
  const watch = new Watch(
    client,
    inventory,
    clock,
    {
      changed: (name) => changes.push(name),
      lifecycle: () => undefined,
      drifted: (name, what) => changes.push(`${name} ${what}`),
    },
    () => {
      givenUp = true;
    },
  );
  return { watch, inventory, list, read, changes, givenUp: () => givenUp };
}

describe('the watch over a host', () => {
  it('applies what was told while it listed on top of the list', async () => {
    const { watch: it, inventory, list } = watch();
    const listed = it.relist();
    it.receive({
      type: 'lifecycle',
      timestamp: '2026-01-01T00:00:01Z',
      metadata: { action: 'instance-stopped', source: '/1.0/instances/one', name: 'one' },
    });
    list.resolve([instance('one')]);
    await listed;
    expect(inventory.get('one')?.status).toBe('Stopped');
  });

  it('holds only so many events for a list that does not come, and then gives the connection up', () => {
    const { watch: it, givenUp } = watch();
    void it.relist();
    for (let count = 0; count < 100_000; count += 1) it.receive(ended('a'));
    expect(givenUp()).toBe(false);
    it.receive(ended('a'));
    expect(givenUp()).toBe(true);
  });

  it('tells the end of an operation, also to who asks after it was told', async () => {
    const { watch: it, list } = watch();
    list.resolve([]);
    await it.relist();
    const waiting = it.operationEnd(operation('a'));
    it.receive(ended('a'));
    it.receive(ended('b'));
    await expect(waiting).resolves.toMatchObject({ succeeded: true });
    await expect(it.operationEnd(operation('b'))).resolves.toMatchObject({ succeeded: true });
  });

  it('does not know how an operation ended that a list does not have any more', async () => {
    const { watch: it, list } = watch();
    const waiting = it.operationEnd(operation('a'));
    list.resolve([]);
    await it.relist();
    await expect(waiting).rejects.toMatchObject({ kind: 'Unknown' });
  });

  it('names what was done to an instance, be it found by a read or by a list, and nothing else', async () => {
    const inventory = new Inventory();
    const made = {
      ...instance('one'),
      config: { 'limits.cpu': '2' },
      devices: { root: { type: 'disk', path: '/' } },
    };
    const changedTo = async (now: Instance) => {
      inventory.replace([made], []);
      const { watch: it, read, list, changes } = watch(inventory);
      const refreshed = it.refresh('one');
      read.resolve(now);
      await refreshed;
      const told = changes.filter((change) => change !== 'one');
      inventory.replace([made], []);
      const relisted = it.relist();
      list.resolve([now]);
      await relisted;
      expect(changes.filter((change) => change !== 'one' && change !== undefined)).toEqual([
        ...told,
        ...told,
      ]);
      return told;
    };
    expect(await changedTo({ ...made, devices: { root: { path: '/', type: 'disk' } } })).toEqual([]);
    expect(
      await changedTo({ ...made, config: { ...made.config, 'user.note': 'x', 'volatile.x': '1' } }),
    ).toEqual([]);
    expect(await changedTo({ ...made, status: 'Stopped' })).toEqual(['one Stopped']);
    expect(await changedTo({ ...made, devices: {} })).toEqual(['one DevicesChanged']);
    expect(await changedTo({ ...made, config: { 'limits.cpu': '4' } })).toEqual(['one ConfigChanged']);
    expect(await changedTo({ ...made, config: {}, devices: {} })).toEqual([
      'one DevicesChanged',
      'one ConfigChanged',
    ]);
    expect(await changedTo({ ...made, profiles: ['privileged'] })).toEqual(['one ConfigChanged']);
  });

  it('reads an instance again, of which Incus could not tell what it is at, until it can', async () => {
    const clock = new ManualClock();
    const answers = ['Error', 'Starting', 'Running', 'never asked'];
    const read = () => Promise.resolve({ ...instance('one'), status: answers.shift()! });
    const { watch: it, inventory, list, changes } = watch(new Inventory(), clock, read);
    list.resolve([{ ...instance('one'), status: 'Error' }, instance('two')]);
    await it.relist();
    expect(inventory.get('one')?.status).toBe('Other');
    for (const left of [3, 2, 1]) {
      clock.advance(2_000);
      await vi.waitUntil(() => changes.length === 5 - left);
      expect(answers).toHaveLength(left);
    }
    expect(inventory.get('one')?.status).toBe('Running');
    clock.advance(3600_000);
    expect(answers).toEqual(['never asked']);
  });

  it('gives up when it cannot look again', async () => {
    const { watch: it, list, givenUp } = watch();
    list.reject(new Error('no answer'));
    await it.lookAgain();
    expect(givenUp()).toBe(true);
  });

  describe('that has ended', () => {
    it('leaves the inventory to the one that came after it, whatever still arrives', async () => {
      const inventory = new Inventory();
      const { watch: old, list, read } = watch(inventory);
      const relist = old.relist();
      const refresh = old.refresh('one');
      old.end();
      list.resolve([instance('one')]);
      read.resolve(instance('one'));
      old.receive(ended('a'));
      await expect(relist).rejects.toMatchObject({ kind: 'Unknown' });
      await expect(refresh).rejects.toMatchObject({ kind: 'Unknown' });
      await expect(old.operationEnd(operation('b'))).rejects.toMatchObject({ kind: 'Unknown' });
      expect(() => old.began(operation('c'))).toThrow('has ended');
      expect([...inventory.all()]).toEqual([]);
      expect(inventory.ended('a')).toBeUndefined();
      expect(inventory.isBusy('one')).toBe(false);
    });

    it('tells those who wait for an operation that its end is unknown', async () => {
      const { watch: it } = watch();
      const waiting = it.operationEnd(operation('a'));
      it.end();
      await expect(waiting).rejects.toMatchObject({ kind: 'Unknown' });
    });
  });
});
