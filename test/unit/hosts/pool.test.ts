import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { IncusHost } from '../../../controller/api/incushost.ts';
import { apiVersion } from '../../../controller/api/meta.ts';
import { byRank, type Demand } from '../../../controller/hosts/admission.ts';
import { candidateOf } from '../../../controller/hosts/candidate.ts';
import { HostPool } from '../../../controller/hosts/pool.ts';
import type { FakeHost } from '../../support/fake-host.ts';
import { ManualClock } from '../../support/manual-clock.ts';

// In place of a connection: a host that is as the test says.
vi.mock('../../../controller/hosts/host.ts', async () => ({
  Host: (await import('../../support/fake-host.ts')).FakeHost,
}));

const GiB = 2 ** 30;

function resource(name: string, spec: object = {}, metadata: object = {}): IncusHost {
  return IncusHost.parse({
    apiVersion,
    kind: 'IncusHost',
    metadata: { name, uid: `uid of ${name}`, creationTimestamp: '2026-01-01T00:00:00Z', ...metadata },
    spec: {
      connection: { local: {} },
      capacity: { instances: 2, cpu: 4, memory: '4GiB' },
      allowedNamespaces: { all: true },
      ...spec,
    },
  });
}
const demand = (key: string, part: Partial<Demand> = {}): Demand => ({
  key,
  namespace: 'ci',
  namespaceLabels: {},
  hostLabels: {},
  type: 'Container',
  cpu: 1,
  memoryBytes: GiB,
  rootDiskBytes: GiB,
  priority: 0,
  avoid: [],
  createdAt: 0,
  ...part,
});
const instanceOf = (key: string) => `instance of ${key}`;

let admitted: string[];
let changed: string[];
let pool: HostPool;
beforeEach(() => {
  admitted = [];
  changed = [];
  pool = newPool((key) => {
    if (!pool.waitingKeys().includes(key)) admitted.push(key);
  });
});

let clock: ManualClock;
function newPool(wake: (key: string) => void): HostPool {
  clock = new ManualClock();
  return new HostPool({
    controllerId: 'us',
    clock,
    readKey: () => Promise.resolve(''),
    wake,
    namespaceLabels: () => ({}),
    events: {
      changed: (host) => changed.push(host),
      drift: () => undefined,
      command: () => undefined,
      eventLag: () => undefined,
      request: () => undefined,
    },
  });
}
const hostOf = (name: string, of = pool) => of.get(name) as unknown as FakeHost;
const ask = (key: string, part: Partial<Demand> = {}) => pool.admit(demand(key, part), instanceOf(key));
const take = (key: string, host = 'h') =>
  pool.occupy(key, instanceOf(key), { host, namespace: 'ci', cpu: 1, memoryBytes: GiB });

describe('the pool', () => {
  it('gives a slot to who asks, and the same answer to who asks again', async () => {
    await pool.put(resource('h'));
    expect(ask('a')).toEqual({ kind: 'admitted', host: 'h' });
    expect(ask('a')).toEqual({ kind: 'admitted', host: 'h' });
    expect(pool.used('h')).toBe(1);
    take('a');
    expect(pool.used('h')).toBe(1);
  });

  it('tells who waits why, and where in the queue, by rank', async () => {
    await pool.put(resource('h', { capacity: { instances: 0 } }));
    ask('young', { createdAt: 2 });
    ask('urgent', { priority: 1, createdAt: 3 });
    expect(ask('old', { createdAt: 1 })).toEqual({
      kind: 'waiting',
      reason: 'NoFreeSlot',
      message: 'h uses 0 of 0 slots',
      hosts: ['h'],
      position: 2,
      length: 3,
    });
    expect(ask('young', { createdAt: 2 })).toMatchObject({ position: 3 });
    expect(pool.waitingKeys()).toEqual(expect.arrayContaining(['young', 'urgent', 'old']));
  });

  it('refuses what no host can ever run, and keeps no place for it', async () => {
    await pool.put(resource('h'));
    expect(ask('huge', { cpu: 5 })).toMatchObject({ kind: 'refused', reason: 'ExceedsCapacity' });
    expect(pool.waitingKeys()).toEqual([]);
  });

  it('hands a slot that is given back to the first in rank that it is enough for', async () => {
    await pool.put(resource('h'));
    for (const key of ['a', 'b']) {
      ask(key);
      take(key);
    }
    admitted = [];
    ask('last', { createdAt: 3 });
    ask('too large', { priority: 9, cpu: 4 });
    ask('first', { createdAt: 1 });
    pool.release(instanceOf('a'));
    expect(admitted).toEqual(['first']);
    pool.release(instanceOf('b'));
    expect(admitted).toEqual(['first', 'last']);
  });

  it('hands out more slots when there are more, at once', async () => {
    ask('a');
    expect(ask('b')).toMatchObject({ kind: 'waiting', reason: 'NoMatchingHost' });
    await pool.put(resource('h', { capacity: { instances: 1 } }));
    expect(admitted).toEqual(['a']);
    const connected = hostOf('h');
    await pool.put(resource('h', { capacity: { instances: 2 } }));
    expect([admitted, hostOf('h') === connected]).toEqual([['a', 'b'], true]);
  });

  it('hands out no more than there is when much becomes free at once', async () => {
    await pool.put(resource('h', { capacity: { instances: 0 } }));
    const wants = {
      a: { cpu: 2 },
      b: { cpu: 3 },
      c: { memoryBytes: 3 * GiB },
      d: { memoryBytes: 3 * GiB },
      e: {},
      f: {},
    };
    Object.entries(wants).forEach(([key, part], createdAt) => ask(key, { cpu: 1, createdAt, ...part }));
    await pool.put(resource('h', { capacity: { instances: 3, cpu: 4, memory: '6GiB' } }));
    expect(admitted).toEqual(['a', 'c', 'e']);
  });

  it('takes the word of a status for who holds a slot, also of one that still waits here', async () => {
    await pool.put(resource('h', { capacity: { instances: 1 } }));
    take('a');
    expect(ask('b')).toMatchObject({ kind: 'waiting', message: 'h uses 1 of 1 slots' });
    take('b');
    expect([pool.waitingKeys(), pool.used('h'), pool.used('none')]).toEqual([[], 2, 0]);
  });

  it('hands out none on a host that is being deleted', async () => {
    await pool.put(resource('h', {}, { deletionTimestamp: '2026-01-01T00:00:00Z' }));
    expect(ask('a')).toMatchObject({ kind: 'waiting', reason: 'HostUnschedulable' });
  });

  it('takes back a slot that was handed to a job which withdraws, and leaves a job the one it holds', async () => {
    await pool.put(resource('h', { capacity: { instances: 1 } }));
    ask('a');
    ask('b');
    pool.withdraw('a');
    expect(admitted).toEqual(['a', 'b']);
    take('b');
    ask('c');
    pool.withdraw('b');
    expect([pool.used('h'), admitted]).toEqual([1, ['a', 'b']]);
    pool.withdraw('c');
    pool.release(instanceOf('b'));
    expect([pool.used('h'), admitted]).toEqual([0, ['a', 'b']]);
  });

  it('keeps slots taken on a host that is down, gone, or connected anew', async () => {
    await pool.put(resource('h', { capacity: { instances: 1 } }));
    ask('a');
    take('a');
    hostOf('h').state = { kind: 'down' };
    expect([pool.used('h'), ask('b')]).toEqual([1, expect.objectContaining({ reason: 'HostUnreachable' })]);
    const before = hostOf('h');
    await pool.put(resource('h', { capacity: { instances: 1 }, project: 'other' }));
    expect([before.closed, hostOf('h') === before, pool.used('h')]).toEqual([true, false, 1]);
    const again = hostOf('h');
    await pool.remove('h');
    expect([again.closed, pool.get('h'), changed]).toEqual([true, undefined, ['h']]);
    await pool.put(resource('h', { capacity: { instances: 1 } }));
    expect([pool.used('h'), ask('b')]).toEqual([1, expect.objectContaining({ reason: 'NoFreeSlot' })]);
  });

  it('counts an instance of ours that nobody holds a slot for, and none of others', async () => {
    await pool.put(resource('h', { capacity: { instances: 1 } }));
    hostOf('h').has('left behind');
    expect(ask('a')).toMatchObject({ kind: 'waiting', reason: 'NoFreeSlot' });
    hostOf('h').inventory.put('left behind', undefined);
    hostOf('h').has('of somebody else', 'them');
    expect(ask('a')).toMatchObject({ kind: 'admitted' });
    hostOf('h').has(instanceOf('a'));
    expect(pool.used('h')).toBe(1);
  });

  it('shows instances of this installation only, and only where they can be seen', async () => {
    await pool.put(resource('h'));
    await pool.put(resource('dark'));
    hostOf('h').has('ours');
    hostOf('h').has('theirs', 'them');
    hostOf('dark').has('hidden');
    hostOf('dark').state = { kind: 'down' };
    expect(pool.ours().map(({ host, instance }) => `${host}/${instance.name}`)).toEqual(['h/ours']);
    expect(pool.instancesOf('uid of ours')).toHaveLength(1);
    expect(pool.instancesOf('uid of theirs')).toEqual([]);
    expect(['ours', 'theirs', 'none'].map((name) => pool.ownerOf('h', name))).toEqual([
      'ci/job of ours',
      undefined,
      undefined,
    ]);
  });

  it('does not know what becomes of a command to a host that is not there', async () => {
    const command = { verb: 'probe', instance: 'i' } as const;
    expect(await pool.perform('none', command)).toMatchObject({ kind: 'unknown' });
    await pool.put(resource('h'));
    expect(await pool.perform('h', command)).toEqual({ kind: 'done' });
  });
});

describe('a pool that is closed', () => {
  it('closes every host', async () => {
    for (const name of ['h', 'i']) await pool.put(resource(name));
    await pool.close();
    expect(['h', 'i'].map((name) => hostOf(name).closed)).toEqual([true, true]);
  });
});

describe('what a host offers', () => {
  it('is not counted where its spec does not say how much there is', () => {
    const state = { kind: 'down', since: 0, reason: 'Connecting', message: '' } as const;
    expect(candidateOf(resource('h', { capacity: { instances: 3 } }), state)).toMatchObject({
      up: false,
      instanceTypes: undefined,
      capacity: { instances: 3, cpu: Infinity, memoryBytes: Infinity },
    });
    expect(candidateOf(resource('h'), state).capacity).toEqual({
      instances: 2,
      cpu: 4,
      memoryBytes: 4 * GiB,
    });
  });
});

/** What is true of the slots, told by what the pool answered alone. */
interface Model {
  waiting: Map<string, Demand>;
  holders: Map<string, { host: string; demand: Demand; taken: boolean }>;
}
interface Real {
  pool: HostPool;
}

const capacities = { h1: { instances: 2, cpu: 3, memory: 4 }, h2: { instances: 1, cpu: 4, memory: 3 } };
const keys = ['a', 'b', 'c', 'd', 'e'];

/** One thing that jobs and hosts do. Afterwards the laws of the pool hold. */
class Deed implements fc.Command<Model, Real> {
  readonly what: string;
  readonly #possible: (model: Model) => boolean;
  readonly #do: (model: Model, real: Real) => void;

  constructor(what: string, possible: (model: Model) => boolean, act: (model: Model, real: Real) => void) {
    this.what = what;
    this.#possible = possible;
    this.#do = act;
  }

  check(model: Readonly<Model>): boolean {
    return this.#possible(model);
  }

  run(model: Model, real: Real): void {
    this.#do(model, real);
    // What comes of a change on a host: all who wait ask again.
    for (const [key, wants] of [...model.waiting]) {
      if (real.pool.admit(wants, instanceOf(key)).kind === 'refused') model.waiting.delete(key);
    }
    for (const [host, capacity] of Object.entries(capacities)) {
      const here = [...model.holders.values()].filter((holder) => holder.host === host);
      const sum = (part: 'cpu' | 'memoryBytes') => here.reduce((total, one) => total + one.demand[part], 0);
      const free = {
        instances: capacity.instances - here.length,
        cpu: capacity.cpu - sum('cpu'),
        memory: capacity.memory - sum('memoryBytes') / GiB,
      };
      expect(Math.min(...Object.values(free)), `room on ${host}`).toBeGreaterThanOrEqual(0);
      expect(real.pool.used(host)).toBe(here.length);
      if (real.pool.state(host)?.kind !== 'up') continue;
      const idle = [...model.waiting.values()].filter(
        ({ cpu, memoryBytes }) => free.instances > 0 && cpu <= free.cpu && memoryBytes / GiB <= free.memory,
      );
      expect(idle, `who waits although ${host} has room`).toEqual([]);
    }
    expect(new Set(real.pool.waitingKeys())).toEqual(new Set(model.waiting.keys()));
    const queue = [...model.waiting.values()].sort(byRank);
    queue.forEach((wants, index) =>
      expect(real.pool.admit(wants, instanceOf(wants.key))).toMatchObject({
        position: index + 1,
        length: queue.length,
      }),
    );
  }

  toString(): string {
    return this.what;
  }
}

describe('the slots of the pool, whatever jobs and hosts do', () => {
  it('are never more than there are, and none is idle while a job waits that it is enough for', () => {
    const key = fc.constantFrom(...keys);
    const host = fc.constantFrom('h1', 'h2');
    const deeds = fc.commands(
      [
        fc
          .tuple(key, fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 4 }), fc.nat(2), fc.nat(2))
          .map(
            ([key, cpu, memory, priority, createdAt]) =>
              new Deed(
                `${key} asks for ${cpu} CPUs and ${memory} GiB`,
                (model) => !model.holders.has(key) && !model.waiting.has(key),
                (model, { pool }) => {
                  const wants = demand(key, { cpu, memoryBytes: memory * GiB, priority, createdAt });
                  model.waiting.set(key, wants);
                  if (pool.admit(wants, instanceOf(key)).kind === 'refused') model.waiting.delete(key);
                },
              ),
          ),
        key.map(
          (key) =>
            new Deed(
              `${key} takes its slot up`,
              (model) => model.holders.get(key)?.taken === false,
              (model, { pool }) => {
                const holder = model.holders.get(key)!;
                const { cpu, memoryBytes } = holder.demand;
                pool.occupy(key, instanceOf(key), { host: holder.host, namespace: 'ci', cpu, memoryBytes });
                hostOf(holder.host, pool).has(instanceOf(key));
                holder.taken = true;
              },
            ),
        ),
        key.map(
          (key) =>
            new Deed(
              `${key} withdraws`,
              () => true,
              (model, { pool }) => {
                model.waiting.delete(key);
                if (model.holders.get(key)?.taken === false) model.holders.delete(key);
                pool.withdraw(key);
              },
            ),
        ),
        key.map(
          (key) =>
            new Deed(
              `${key} is gone`,
              (model) => model.holders.get(key)?.taken === true,
              (model, { pool }) => {
                hostOf(model.holders.get(key)!.host, pool).inventory.put(instanceOf(key), undefined);
                model.holders.delete(key);
                pool.release(instanceOf(key));
                pool.release(instanceOf(key));
              },
            ),
        ),
        host.map(
          (name) =>
            new Deed(
              `${name} goes or comes back`,
              () => true,
              (_model, { pool }) => {
                const one = hostOf(name, pool);
                one.state = { kind: one.state.kind === 'up' ? 'down' : 'up' };
              },
            ),
        ),
      ],
      { maxCommands: 40 },
    );
    fc.assert(
      fc.property(deeds, (steps) => {
        fc.modelRun(() => {
          const model: Model = { waiting: new Map(), holders: new Map() };
          const pool = newPool((key) => {
            const wants = model.waiting.get(key);
            if (!wants) return;
            const answer = pool.admit(wants, instanceOf(key));
            if (answer.kind === 'admitted') model.waiting.delete(key);
            if (answer.kind === 'admitted')
              model.holders.set(key, { host: answer.host, demand: wants, taken: false });
          });
          for (const [name, { memory, ...counts }] of Object.entries(capacities)) {
            void pool.put(resource(name, { capacity: { ...counts, memory: `${memory}GiB` } }));
          }
          return { model, real: { pool } };
        }, steps);
      }),
      { numRuns: 200 },
    );
  }, 60_000);
});

describe('a host that fails to create instances', () => {
  const create = (host: string, namespace = 'ci') =>
    pool.perform(host, {
      verb: 'create',
      instance: 'i',
      definition: {
        name: 'i',
        type: 'container',
        fingerprint: 'f',
        profiles: [],
        config: { 'user.cijob.namespace': namespace },
        devices: {},
      },
      wanted: { namespace, image: 'image', profiles: [], mounts: [] },
    });
  /** Two hosts; `bad` has more free slots, and its pool is full. */
  beforeEach(async () => {
    await pool.put(resource('bad', { capacity: { instances: 9 } }));
    await pool.put(resource('good', { capacity: { instances: 2 } }));
    hostOf('bad').outcome = { kind: 'failed', message: 'no space left on device' };
  });

  it('is passed over by a job that it has failed, as long as another has room', () => {
    expect(ask('first')).toEqual({ kind: 'admitted', host: 'bad' });
    expect(ask('again', { avoid: ['bad'] })).toEqual({ kind: 'admitted', host: 'good' });
    expect(ask('both', { avoid: ['bad', 'good'] })).toEqual({ kind: 'admitted', host: 'bad' });
  });

  it('is given no jobs after failures of several namespaces, then one, and all again when that works', async () => {
    for (const namespace of ['ci', 'other', 'third', 'ci', 'other']) await create('bad', namespace);
    expect(pool.refusalOf('bad')).toEqual({
      all: true,
      message: 'creating instances failed 5 times in a row: no space left on device',
    });
    expect([ask('a'), ask('b')]).toEqual([
      { kind: 'admitted', host: 'good' },
      { kind: 'admitted', host: 'good' },
    ]);
    expect(ask('c')).toMatchObject({ kind: 'waiting', reason: 'NoFreeSlot' });
    changed = [];
    clock.advance(15_000);
    expect([changed, admitted]).toEqual([['bad'], ['a', 'b', 'c']]);
    expect(ask('d')).toMatchObject({ kind: 'waiting' });
    hostOf('bad').outcome = { kind: 'done' };
    await create('bad');
    expect(pool.refusalOf('bad')).toBeUndefined();
    expect(ask('d')).toEqual({ kind: 'admitted', host: 'bad' });
  });

  it('is kept from a namespace alone whose instances it does not create, and from no other', async () => {
    for (let failures = 0; failures < 9; failures += 1) await create('bad', 'broken');
    expect(pool.refusalOf('bad')).toMatchObject({ all: false });
    const broken = { namespace: 'broken', hostLabels: {} };
    expect([ask('a', broken), ask('b', broken)]).toEqual([
      { kind: 'admitted', host: 'good' },
      { kind: 'admitted', host: 'good' },
    ]);
    expect(ask('c', broken)).toMatchObject({ kind: 'waiting' });
    for (const key of ['d', 'e', 'f', 'g']) expect(ask(key)).toEqual({ kind: 'admitted', host: 'bad' });
  });

  it("is not blamed for instances that were made and did not start, which is their jobs' fault", async () => {
    hostOf('bad').outcome = { kind: 'failed', reason: 'StartFailed', message: 'no such directory' };
    for (let round = 0; round < 3; round += 1) for (const name of ['a', 'b', 'e']) await create('bad', name);
    expect(pool.refusalOf('bad')).toMatchObject({ all: false });
    expect(ask('c')).toEqual({ kind: 'admitted', host: 'bad' });
  });

  it('is closed in words of our own to those who wait; those of Incus are for the IncusHost', async () => {
    const secret = 'the pool of team-a at /srv/secret is full';
    hostOf('bad').outcome = { kind: 'failed', message: secret };
    await pool.remove('good');
    for (const namespace of ['a', 'b', 'e', 'a', 'b']) await create('bad', namespace);
    expect(ask('c')).toMatchObject({
      reason: 'HostUnschedulable',
      message: 'bad takes no new jobs: creating instances fails there at the moment (see the IncusHost)',
    });
    expect(ask('d', { namespace: 'a' })).not.toMatchObject({
      message: expect.stringContaining(secret) as string,
    });
    expect(pool.refusalOf('bad')?.message).toContain(secret);
  });

  it('is not waited for when the pool is closed: a timer would keep the process alive', async () => {
    for (let failures = 0; failures < 3; failures += 1) await create('bad');
    changed = [];
    await pool.close();
    clock.advance(600_000);
    expect(changed).toEqual([]);
  });

  it('is not blamed for an answer that was lost, or for what was wrong with the job', async () => {
    for (const outcome of [
      { kind: 'unknown', message: '' },
      { kind: 'refused', reason: 'IncusRefused', message: '' },
    ] as const) {
      hostOf('bad').outcome = outcome;
      for (let failures = 0; failures < 5; failures += 1) await create('bad');
    }
    expect(pool.refusalOf('bad')).toBeUndefined();
  });
});
