import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { byRank, fit, type Demand, type Offer } from '../../../controller/hosts/admission.ts';

const demand = (part: Partial<Demand> = {}): Demand => ({
  key: 'ci/job',
  namespace: 'ci',
  namespaceLabels: {},
  hostLabels: {},
  type: 'Container',
  cpu: 2,
  memoryBytes: 4,
  rootDiskBytes: 20,
  priority: 0,
  avoid: [],
  createdAt: 0,
  ...part,
});
const offer = (part: Partial<Offer> = {}): Offer => ({
  name: 'h',
  labels: {},
  up: true,
  unschedulable: undefined,
  refusal: () => undefined,
  instanceTypes: ['Container', 'VirtualMachine'],
  namespaceLabels: undefined,
  capacity: { instances: 2, cpu: 8, memoryBytes: 16 },
  largest: { cpu: 8, memoryBytes: 16, rootDiskBytes: 100 },
  used: { instances: 0, cpu: 0, memoryBytes: 0 },
  ...part,
});
const used = (instances: number, cpu = 0, memoryBytes = 0) => ({ instances, cpu, memoryBytes });
const answer = (wants: Demand, ...offers: Offer[]) => {
  const found = fit(wants, offers);
  return found.kind === 'fits' ? `fits ${found.host}` : `${found.kind} ${found.reason}`;
};

describe('a job and the hosts there are', () => {
  it('wait with the names of the hosts that may take it one day, in reach or not, or of none', () => {
    const hosts = (wants: Demand, ...offers: Offer[]) => {
      const found = fit(wants, offers);
      return found.kind === 'waits' ? found.hosts : found.kind;
    };
    const gpu = demand({ hostLabels: { gpu: 'yes' }, type: 'VirtualMachine' });
    const away = offer({ name: 'away', labels: { gpu: 'yes' }, up: false, instanceTypes: undefined });
    const full = offer({ name: 'full', labels: { gpu: 'yes' }, used: used(2) });
    const unable = offer({ name: 'unable', labels: { gpu: 'yes' }, instanceTypes: ['Container'] });
    const drained = offer({
      name: 'drained',
      labels: { gpu: 'yes' },
      unschedulable: 'spec.unschedulable is set',
      refusal: () => 'spec.unschedulable is set',
    });
    expect(hosts(gpu, offer(), away, unable, drained)).toEqual(['away']);
    expect(hosts(gpu, offer(), away, full)).toEqual(['away', 'full']);
    expect(hosts(gpu, { ...full, used: used(0), refusal: () => 'creating fails there' })).toEqual(['full']);
    expect(hosts(gpu, offer(), drained)).toEqual([]);
    expect(hosts(gpu, offer())).toEqual([]);
    expect(hosts(gpu, { ...full, namespaceLabels: { team: 'a' } })).toEqual([]);
  });

  it('fit where there is room for it to the last slot, CPU and byte', () => {
    expect(answer(demand(), offer({ used: used(1, 6, 12) }))).toBe('fits h');
  });

  it.each([
    ['slot', used(2)],
    ['CPU', used(0, 7)],
    ['byte of memory', used(0, 0, 13)],
  ])('wait where one %s is missing, because that may become free', (_what, taken) => {
    expect(answer(demand(), offer({ used: taken }))).toBe('waits NoFreeSlot');
  });

  it.each([
    ['CPUs', demand({ cpu: 9 })],
    ['memory', demand({ memoryBytes: 17 })],
    ['of its pool', demand({ rootDiskBytes: 101 })],
  ])('never fit where it asks for more %s than the host has', (_what, wants) => {
    expect(answer(wants, offer())).toBe('never ExceedsCapacity');
    const large = offer({ name: 'large', capacity: { ...wants, instances: 1 }, largest: wants });
    expect(answer(wants, offer(), large)).toBe('fits large');
  });

  it('may ask for as many CPUs as a host has, though all together may ask for more', () => {
    const shared = offer({ capacity: { instances: 4, cpu: Infinity, memoryBytes: 16 }, used: used(1, 8) });
    expect(answer(demand({ cpu: 8 }), shared)).toBe('fits h');
    expect(answer(demand({ cpu: 9 }), shared)).toBe('never ExceedsCapacity');
  });

  it('fit as large as the host itself, and any size where the host does not count', () => {
    expect(answer(demand({ cpu: 8, memoryBytes: 16 }), offer())).toBe('fits h');
    const uncounted = offer({
      capacity: { instances: 1, cpu: Infinity, memoryBytes: Infinity },
      largest: { cpu: Infinity, memoryBytes: Infinity, rootDiskBytes: Infinity },
    });
    const huge = { cpu: 1e5, memoryBytes: 2 ** 50, rootDiskBytes: 2 ** 50 };
    expect(answer(demand(huge), uncounted)).toBe('fits h');
  });

  it('go together by all labels of the selector, and wait for a host that has them', () => {
    const wants = demand({ hostLabels: { arch: 'x86_64', disk: 'fast' } });
    expect(answer(wants, offer({ labels: { arch: 'x86_64' } }))).toBe('waits NoMatchingHost');
    expect(answer(wants, offer({ labels: { arch: 'x86_64', disk: 'fast', more: 'of it' } }))).toBe('fits h');
  });

  it('go together by all labels that the host wants of a namespace', () => {
    const picky = offer({ namespaceLabels: { team: 'a', trusted: 'yes' } });
    expect(answer(demand({ namespaceLabels: { team: 'a' } }), picky)).toBe('waits NamespaceNotAllowed');
    expect(answer(demand({ namespaceLabels: { team: 'a', trusted: 'yes' } }), picky)).toBe('fits h');
  });

  it('never fit by the type of instance, but only once Incus has said what it can run', () => {
    const wants = demand({ type: 'VirtualMachine' });
    const lxcOnly = offer({ instanceTypes: ['Container'] });
    const notSeenYet = offer({ name: 'new', up: false, instanceTypes: undefined });
    expect(answer(wants, lxcOnly)).toBe('never InstanceTypeUnsupported');
    expect(answer(wants, lxcOnly, notSeenYet)).toBe('waits HostUnreachable');
  });

  it.each([
    ['no host at all', [], 'waits NoMatchingHost'],
    ['a host that is not connected', [offer({ up: false })], 'waits HostUnreachable'],
    [
      'a host that takes no jobs',
      [offer({ refusal: () => 'it is being deleted' })],
      'waits HostUnschedulable',
    ],
    [
      'a host without a single slot',
      [offer({ capacity: { ...offer().capacity, instances: 0 } })],
      'waits NoFreeSlot',
    ],
  ])('wait with %s', (_what, offers, expected) => {
    expect(answer(demand(), ...offers)).toBe(expected);
  });

  it('are told what stands in the way, by name', () => {
    const message = (wants: Demand, ...offers: Offer[]) => {
      const found = fit(wants, offers);
      return found.kind === 'fits' ? '' : found.message;
    };
    const hosts = (count: number, part: Partial<Offer>) =>
      Array.from({ length: count }, (_, index) => offer({ name: `h${index}`, ...part }));
    expect(message(demand())).toBe('there is no IncusHost');
    expect(message(demand({ hostLabels: { a: 'b', c: 'd' } }), offer())).toContain('a=b,c=d');
    expect(message(demand(), offer({ refusal: () => 'it is being deleted' }))).toContain(
      'it is being deleted',
    );
    expect(message(demand(), offer({ used: used(2) }))).toBe('h uses 2 of 2 slots');
    const GiB = 2 ** 30;
    const large = offer({
      capacity: { instances: 2, cpu: 8, memoryBytes: 16 * GiB },
      largest: { cpu: 8, memoryBytes: 16 * GiB, rootDiskBytes: Infinity },
    });
    expect(message(demand({ memoryBytes: 12 * GiB }), { ...large, used: used(1, 2, 8 * GiB) })).toBe(
      'h uses 1 of 2 slots, 2 of 8 CPUs, 8.0GiB of 16.0GiB of memory',
    );
    expect(message(demand({ cpu: 9 }), large)).toBe(
      'h is smaller than the instance asked for: h gives one instance at most 8 CPUs, 16.0GiB of memory',
    );
    expect(message(demand(), ...hosts(5, { up: false }))).toBe('h0, h1, h2, h3, h4 is not connected');
    expect(message(demand(), ...hosts(7, { up: false }))).toContain('h4 and 2 more');
    expect(
      message(demand({ type: 'VirtualMachine' }), ...hosts(2, { instanceTypes: ['Container'] })),
    ).toMatch(/Incus reports only Container$/);
  });

  it('meet on the host with the most free slots, then on the first by name', () => {
    const busy = offer({ name: 'a', used: used(1) });
    expect(answer(demand(), busy, offer({ name: 'c' }), offer({ name: 'b' }))).toBe('fits b');
    const roomy = offer({ name: 'z', capacity: { ...offer().capacity, instances: 9 }, used: used(6) });
    expect(answer(demand(), busy, offer({ name: 'b' }), roomy)).toBe('fits z');
  });

  it('never meet on a host that has no room, is not connected, takes nothing or is not meant', () => {
    const small = fc.nat(3);
    const label = fc.constantFrom<Record<string, string>>({}, { k: 'a' }, { k: 'b' });
    const anOffer = fc.record({
      labels: label,
      up: fc.boolean(),
      refusal: fc.constantFrom(
        () => undefined,
        () => 'closed',
      ),
      instanceTypes: fc.constantFrom<Offer['instanceTypes']>(undefined, ['Container'], ['VirtualMachine']),
      namespaceLabels: fc.option(label, { nil: undefined }),
      capacity: fc.record({ instances: small, cpu: small, memoryBytes: small }),
      used: fc.record({ instances: small, cpu: small, memoryBytes: small }),
    });
    const aDemand = fc.record({
      hostLabels: label,
      namespaceLabels: label,
      type: fc.constantFrom<Demand['type']>('Container', 'VirtualMachine'),
      cpu: fc.integer({ min: 1, max: 3 }),
      memoryBytes: fc.integer({ min: 1, max: 3 }),
    });
    const has = (wanted: Record<string, string>, labels: Readonly<Record<string, string>>) =>
      wanted['k'] === undefined || wanted['k'] === labels['k'];
    fc.assert(
      fc.property(aDemand, fc.array(anOffer, { maxLength: 4 }), (wants, parts) => {
        const offers = parts.map((part, index) => offer({ ...part, name: `h${index}` }));
        const suits = offers.filter(
          (one) =>
            one.up &&
            one.refusal('ci') === undefined &&
            has(wants.hostLabels, one.labels) &&
            has({ ...one.namespaceLabels }, wants.namespaceLabels) &&
            (one.instanceTypes?.includes(wants.type) ?? true) &&
            one.used.instances < one.capacity.instances &&
            one.used.cpu + wants.cpu <= one.capacity.cpu &&
            one.used.memoryBytes + wants.memoryBytes <= one.capacity.memoryBytes,
        );
        const found = fit(demand(wants), offers);
        if (found.kind === 'fits') expect(suits.map(({ name }) => name)).toContain(found.host);
        else expect(suits).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

describe('the rank of a job', () => {
  it('is by priority, then by age, then by name', () => {
    const order = [
      demand({ key: 'ci/urgent', priority: 1, createdAt: 9 }),
      demand({ key: 'ci/old', createdAt: 1 }),
      demand({ key: 'ci/a', createdAt: 2 }),
      demand({ key: 'ci/b', createdAt: 2 }),
      demand({ key: 'ci/humble', priority: -1, createdAt: 0 }),
    ];
    expect(order.toReversed().sort(byRank)).toEqual(order);
  });

  it('is a strict order: of two jobs exactly one goes first, whoever is asked', () => {
    const job = fc
      .record({ priority: fc.nat(2), createdAt: fc.nat(2), key: fc.constantFrom('a', 'b', 'c') })
      .map(demand);
    fc.assert(
      fc.property(job, job, job, (a, b, c) => {
        expect(Math.sign(byRank(a, b)) + Math.sign(byRank(b, a))).toBe(0);
        const same = a.priority === b.priority && a.createdAt === b.createdAt && a.key === b.key;
        expect(byRank(a, b) === 0).toBe(same);
        if (byRank(a, b) < 0 && byRank(b, c) < 0) expect(byRank(a, c)).toBeLessThan(0);
      }),
    );
  });
});
