import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { byAge, type Demand } from '../../../controller/hosts/admission.ts';
import { Scheduler, type Candidate } from '../../../controller/hosts/scheduler.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const GiB = 2 ** 30;
const host = (name: string, instances: number, part: Partial<Candidate> = {}): Candidate => ({
  name,
  labels: {},
  up: true,
  unschedulable: undefined,
  instanceTypes: undefined,
  namespaceLabels: undefined,
  capacity: { instances, cpu: Infinity, memoryBytes: Infinity },
  largest: { cpu: Infinity, memoryBytes: Infinity, rootDiskBytes: Infinity },
  instances: [],
  ...part,
});
/** A job `namespace/name`. */
const demand = (key: string, part: Partial<Demand> = {}): Demand => ({
  key,
  namespace: key.split('/')[0]!,
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

/** The scheduler with hosts that a test changes, and everything that it did. */
class Bench {
  readonly clock = new ManualClock();
  hosts: Candidate[] = [];
  readonly demands = new Map<string, Demand>();
  /** Jobs that hold a slot, and on which host, in the order in which they were given it. */
  readonly holders = new Map<string, string>();
  woken = 0;
  readonly scheduler = new Scheduler({
    clock: this.clock,
    hosts: () => this.hosts,
    onRefusal: () => undefined,
    wake: (key) => {
      this.woken += 1;
      this.look(key);
    },
  });

  ask(key: string, part: Partial<Demand> = {}) {
    this.demands.set(key, demand(key, part));
    return this.look(key);
  }

  /** What a look at a job does: it asks, and takes a slot that it is given. */
  look(key: string) {
    const wants = this.demands.get(key)!;
    if (this.holders.has(key)) return undefined;
    const answer = this.scheduler.admit(wants, `of ${key}`);
    if (answer.kind !== 'admitted') return answer;
    this.holders.set(key, answer.host);
    const { namespace, cpu, memoryBytes } = wants;
    this.scheduler.occupy(key, `of ${key}`, { host: answer.host, namespace, cpu, memoryBytes });
    return answer;
  }

  end(key: string) {
    this.holders.delete(key);
    this.scheduler.release(`of ${key}`);
  }

  held(namespace: string) {
    return [...this.holders.keys()].filter((key) => key.startsWith(`${namespace}/`));
  }

  /** Makes room for one more, and returns who gets it. */
  oneMore(): string | undefined {
    const before = this.holders.size;
    const { capacity } = this.hosts[0]!;
    this.hosts[0] = { ...this.hosts[0]!, capacity: { ...capacity, instances: capacity.instances + 1 } };
    this.scheduler.assign();
    return [...this.holders.keys()][before];
  }
}

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});

describe('slots among namespaces', () => {
  it('go to the one that has the least, however many jobs another has and of what priority', () => {
    bench.hosts = [host('h', 4)];
    for (let index = 0; index < 20; index += 1) {
      bench.ask(`greedy/${index}`, { priority: 1_000_000, createdAt: index });
    }
    for (let index = 0; index < 3; index += 1) bench.ask(`modest/${index}`, { createdAt: 100 + index });
    for (const key of ['greedy/0', 'greedy/1']) bench.end(key);
    expect([bench.held('greedy').length, bench.held('modest').length]).toEqual([2, 2]);
    bench.end('greedy/2');
    expect([bench.held('greedy').length, bench.held('modest').length]).toEqual([2, 2]);
    bench.end('modest/0');
    expect([bench.held('greedy').length, bench.held('modest').length]).toEqual([2, 2]);
    expect(bench.holders.has('modest/2')).toBe(true);
  });

  it('count by what they take of the memory, where that is more', () => {
    const capacity = { instances: 8, cpu: Infinity, memoryBytes: 32 * GiB };
    bench.hosts = [host('h', 8, { capacity })];
    // A quarter of the memory is worth two of eight slots.
    bench.ask('large/1', { memoryBytes: 8 * GiB });
    bench.ask('large/2', { memoryBytes: 8 * GiB });
    for (let index = 0; index < 3; index += 1) bench.ask(`small/${index}`);
    bench.hosts = [host('h', 5, { capacity: { ...capacity, instances: 5 } })];
    bench.ask('large/3', { memoryBytes: 8 * GiB });
    bench.ask('small/3', { createdAt: 1 });
    bench.hosts = [host('h', 6, { capacity })];
    bench.scheduler.assign();
    expect(bench.holders.has('small/3')).toBe(true);
  });

  it('go to the oldest job where they have the same', () => {
    bench.hosts = [host('h', 0)];
    bench.ask('a/1', { createdAt: 5, priority: 9 });
    bench.ask('b/1', { createdAt: 3 });
    expect([bench.oneMore(), bench.oneMore()]).toEqual(['b/1', 'a/1']);
  });

  it('go within one by priority, age and name, and past a job that fits nowhere now', () => {
    const capacity = { instances: 2, cpu: 4, memoryBytes: 8 * GiB };
    bench.hosts = [host('h', 2, { capacity, largest: { ...capacity, rootDiskBytes: Infinity } })];
    bench.ask('a/first', { cpu: 2 });
    bench.ask('a/second', { cpu: 1 });
    bench.ask('a/large', { cpu: 4, priority: 5 });
    bench.ask('a/young', { createdAt: 2 });
    bench.ask('a/old', { createdAt: 1 });
    bench.ask('a/urgent', { createdAt: 3, priority: 1 });
    bench.end('a/second');
    expect(bench.holders.has('a/urgent')).toBe(true);
    bench.end('a/urgent');
    expect(bench.holders.has('a/old')).toBe(true);
    bench.end('a/old');
    bench.end('a/first');
    // The host is empty for a moment: the large job is first in rank.
    expect([...bench.holders.keys()]).toEqual(['a/young']);
    bench.end('a/young');
    expect([...bench.holders.keys()]).toEqual(['a/large']);
  });
});

const namespaces = ['a', 'b', 'c'];
const aJob = fc.record({
  namespace: fc.constantFrom(...namespaces),
  priority: fc.integer({ min: -1_000_000, max: 1_000_000 }),
  createdAt: fc.nat(50),
  memory: fc.integer({ min: 1, max: 6 }),
});

describe('the queue, whoever asks for whatever', () => {
  it('never gives a slot to a namespace while one that has less waits with a job that fits', () => {
    fc.assert(
      fc.property(
        fc.array(aJob, { maxLength: 30 }),
        fc.array(fc.nat(), { maxLength: 30 }),
        fc.integer({ min: 1, max: 5 }),
        (jobs, ends, instances) => {
          const own = new Bench();
          own.hosts = [
            host('h', instances, { capacity: { instances, cpu: Infinity, memoryBytes: 8 * GiB } }),
          ];
          const { capacity } = own.hosts[0]!;
          const memoryOf = (keys: string[]) =>
            keys.reduce((sum, key) => sum + own.demands.get(key)!.memoryBytes, 0);
          const shareOf = (keys: string[]) =>
            Math.max(keys.length, (memoryOf(keys) / capacity.memoryBytes) * instances);
          const check = (before: string[]) => {
            const given = [...own.holders.keys()].filter((key) => !before.includes(key));
            const held = [...before];
            for (const key of given) {
              const namespace = key.split('/')[0]!;
              const of = (name: string) => held.filter((one) => one.startsWith(`${name}/`));
              const room = capacity.memoryBytes - memoryOf(held);
              const waiting = [...own.demands.values()].filter(
                (one) =>
                  !held.includes(one.key) &&
                  own.scheduler.waitingKeys().includes(one.key) &&
                  one.memoryBytes <= room,
              );
              for (const one of waiting) {
                expect(
                  shareOf(of(one.namespace)),
                  `${one.key} was passed over for ${key}`,
                ).toBeGreaterThanOrEqual(shareOf(of(namespace)));
              }
              held.push(key);
            }
          };
          jobs.forEach(({ namespace, memory, ...rest }, index) =>
            own.ask(`${namespace}/${index}`, { ...rest, memoryBytes: memory * GiB }),
          );
          for (const pick of ends) {
            const holding = [...own.holders.keys()];
            const key = holding[pick % Math.max(1, holding.length)];
            if (key === undefined) continue;
            const before = holding.filter((one) => one !== key);
            own.demands.get(key)!.createdAt = -1;
            own.end(key);
            check(before);
          }
        },
      ),
    );
  });

  it('serves every job in the end, and in the order of the places it was told, if slots come one by one', () => {
    fc.assert(
      fc.property(
        fc.array(aJob, { minLength: 1, maxLength: 25 }),
        fc.array(fc.nat(), { maxLength: 5 }),
        (jobs, held) => {
          const own = new Bench();
          own.hosts = [host('h', held.length)];
          held.forEach((pick, index) => own.ask(`${namespaces[pick % 3]!}/held-${index}`));
          jobs.forEach(({ namespace, priority, createdAt }, index) =>
            own.ask(`${namespace}/${index}`, { priority, createdAt }),
          );
          const waiting = [...own.demands.keys()].filter((key) => !own.holders.has(key));
          const places = waiting.map((key) => [own.look(key), key] as const);
          const told = places
            .map(([answer, key]) => ({ place: answer?.kind === 'waiting' ? answer.position : 0, key }))
            .sort((a, b) => a.place - b.place);
          expect(told.map(({ place }) => place)).toEqual(waiting.map((_key, index) => index + 1));
          expect(told.map(() => own.oneMore())).toEqual(told.map(({ key }) => key));
        },
      ),
    );
  });
});

describe('a host that fails for jobs of several namespaces', () => {
  const fail = (namespace: string) => bench.scheduler.created('h', namespace, 'no space left on device');

  it('is tried by the oldest job of a namespace that did not fail, whatever the priority of others', () => {
    bench.hosts = [host('h', 9)];
    for (const namespace of ['a', 'b', 'e', 'a', 'b']) fail(namespace);
    bench.ask('a/urgent', { priority: 1_000_000 });
    bench.ask('c/urgent', { priority: 9, createdAt: 2 });
    bench.ask('c/old', { createdAt: 1 });
    bench.ask('b/oldest');
    expect([...bench.holders.keys()]).toEqual([]);
    bench.clock.advance(15_000);
    expect([...bench.holders.keys()]).toEqual(['c/old']);
    bench.scheduler.created('h', 'c', undefined);
    expect(bench.holders.size).toBe(4);
  });

  it('is tried again at once, by the next namespace, when the trial ends without an instance', () => {
    bench.hosts = [host('h', 9)];
    for (const namespace of ['a', 'b', 'e', 'a', 'b']) fail(namespace);
    for (const key of ['a/1', 'a/2', 'b/1']) bench.ask(key, { priority: key === 'a/2' ? 1_000_000 : 0 });
    bench.clock.advance(15_000);
    expect([...bench.holders.keys()]).toEqual(['a/1']);
    bench.end('a/1');
    expect([...bench.holders.keys()]).toEqual(['b/1']);
    bench.end('b/1');
    expect([...bench.holders.keys()]).toEqual(['a/2']);
  });
});

describe('a host that fails for jobs of one namespace', () => {
  it('is tried by the oldest job of it that it has not failed yet, whatever the priority of others', () => {
    bench.hosts = [host('h', 9)];
    for (let failures = 0; failures < 3; failures += 1) bench.scheduler.created('h', 'a', 'no such file');
    bench.ask('a/broken', { priority: 1_000_000, avoid: ['h'] });
    bench.ask('a/urgent', { priority: 9, createdAt: 2 });
    bench.ask('a/old', { createdAt: 1 });
    bench.ask('b/other');
    expect([...bench.holders.keys()]).toEqual(['b/other']);
    bench.clock.advance(15_000);
    expect([...bench.holders.keys()]).toEqual(['b/other', 'a/old']);
    bench.scheduler.created('h', 'a', undefined);
    expect(bench.holders.size).toBe(4);
  });
});

describe('three broken jobs of the highest priority', () => {
  it('hurt no other namespace: its jobs go on as if they were alone', () => {
    /** Jobs of another namespace that end in an hour on four slots, each after a minute. */
    const throughput = (attackers: number) => {
      const own = new Bench();
      own.hosts = [host('h', 4)];
      let victims = 0;
      const attackOn = (key: string) => own.ask(key, { priority: 1_000_000 });
      for (let index = 0; index < attackers; index += 1) attackOn(`attacker/${index}-0`);
      for (let index = 0; index < 8; index += 1) own.ask(`victim/${index}`, { createdAt: index });
      for (let minute = 1; minute <= 60; minute += 1) {
        for (const key of [...own.holders.keys()]) {
          if (key.startsWith('attacker/')) {
            own.scheduler.created('h', 'attacker', 'Overflow multiplying 999999999 by 1099511627776');
            own.end(key);
            attackOn(`${key.replace(/-.*/, '')}-${minute}`);
          } else {
            own.scheduler.created('h', 'victim', undefined);
            own.end(key);
            victims += 1;
            own.ask(`victim/${victims + 8}`, { createdAt: victims + 8 });
          }
        }
        own.clock.advance(60_000);
      }
      return victims;
    };
    const alone = throughput(0);
    expect(alone).toBe(240);
    // The few trials that the attackers get take a slot for a minute each.
    expect(throughput(3)).toBeGreaterThanOrEqual(0.9 * alone);
    expect(throughput(8)).toBeGreaterThanOrEqual(0.9 * alone);
  });
});

describe('ten thousand jobs that wait', () => {
  it('are not all looked at because a host changed, only those that can be told something of use', () => {
    bench.hosts = [host('h', 0)];
    for (let index = 0; index < 10_000; index += 1) bench.ask(`a/${index}`);
    bench.woken = 0;
    bench.scheduler.hostsChanged();
    expect(bench.woken).toBeLessThanOrEqual(100);
  });

  it('are all refused when the host turns out to be too small for them', () => {
    bench.hosts = [host('h', 0)];
    for (let index = 0; index < 500; index += 1) bench.ask(`a/${index}`, { cpu: 64 });
    bench.hosts = [host('h', 9, { largest: { cpu: 8, memoryBytes: Infinity, rootDiskBytes: Infinity } })];
    bench.scheduler.hostsChanged();
    expect([bench.scheduler.waitingKeys(), bench.holders.size]).toEqual([[], 0]);
  });
});

describe('the order of age', () => {
  it('is that of creation, then of names', () => {
    const jobs = [
      demand('a/2', { createdAt: 1 }),
      demand('b/1', { createdAt: 1 }),
      demand('a/1', { createdAt: 2 }),
    ];
    expect(jobs.toReversed().sort(byAge)).toEqual(jobs);
  });
});
