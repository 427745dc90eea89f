import type { InstanceType } from './host.ts';
import type { Usage } from './ledger.ts';

/** What a job asks of a host. Two jobs that ask for the same fit on the same hosts. */
export interface Ask {
  namespace: string;
  namespaceLabels: Readonly<Record<string, string>>;
  hostLabels: Readonly<Record<string, string>>;
  type: InstanceType;
  cpu: number;
  memoryBytes: number;
  rootDiskBytes: number;
  /** Hosts that failed the job before: only if no other has room. */
  avoid: readonly string[];
}

/** What a job asks, and its rank among those of its namespace. */
export interface Demand extends Ask {
  /** `namespace/name` of the job. */
  key: string;
  priority: number;
  /** Milliseconds since the epoch. */
  createdAt: number;
}

/** What a host offers. What is not known or not counted is `Infinity`. */
export interface Offer {
  name: string;
  labels: Readonly<Record<string, string>>;
  /** Whether it is connected. Nothing is sent to a host that is not. */
  up: boolean;
  /** Why it takes no jobs, by its spec; undefined when it does. */
  unschedulable: string | undefined;
  /** Why it takes no new jobs, or none of a namespace; undefined when it does. For everybody to read. */
  refusal: (namespace: string) => string | undefined;
  /** undefined while not known. */
  instanceTypes: readonly InstanceType[] | undefined;
  /** Labels a namespace needs; undefined admits all. */
  namespaceLabels: Readonly<Record<string, string>> | undefined;
  /** What all instances together may take. */
  capacity: Usage;
  /** What a single instance may be. */
  largest: { cpu: number; memoryBytes: number; rootDiskBytes: number };
  used: Usage;
}

export type Fit =
  | { kind: 'fits'; host: string }
  /** A host could run it, but not now. `hosts`: those that may take it one day with the specs they have; maybe none. */
  | { kind: 'waits'; reason: string; message: string; hosts: string[] }
  /** No host can run it, whatever happens to the ones there are. */
  | { kind: 'never'; reason: string; message: string };

/** Finds the host for a job ({@link roomFor}), or says what stands in the way, beginning with what concerns most hosts. */
export function fit(ask: Ask, offers: readonly Offer[]): Fit {
  const host = roomFor(ask, offers);
  return host === undefined ? obstacle(ask, offers) : { kind: 'fits', host };
}

/**
 * The name of the host for a job: of those that admit it and have room, one that has not failed it yet, of these the one
 * with the most free slots, and of these the first by name. undefined if there is none now.
 */
export function roomFor(ask: Ask, offers: readonly Offer[]): string | undefined {
  let best: Offer | undefined;
  for (const offer of offers) {
    if (hasRoomFor(ask, offer) && admits(ask, offer) && (!best || isBetter(ask, offer, best))) best = offer;
  }
  return best?.name;
}

/** Whether a host is connected and has room now. */
function hasRoomFor({ cpu, memoryBytes }: Ask, { up, capacity, used }: Offer): boolean {
  return (
    up &&
    used.instances + 1 <= capacity.instances &&
    used.cpu + cpu <= capacity.cpu &&
    used.memoryBytes + memoryBytes <= capacity.memoryBytes
  );
}

/** Whether a host takes such a job, if it has room. */
function admits(ask: Ask, { labels, namespaceLabels, instanceTypes, largest, refusal }: Offer): boolean {
  return (
    matches(ask.hostLabels, labels) &&
    (namespaceLabels === undefined || matches(namespaceLabels, ask.namespaceLabels)) &&
    (instanceTypes?.includes(ask.type) ?? true) &&
    isLargeEnough(largest, ask) &&
    refusal(ask.namespace) === undefined
  );
}

function isBetter({ avoid }: Ask, one: Offer, other: Offer): boolean {
  const avoided = ({ name }: Offer) => Number(avoid.includes(name));
  const order = avoided(one) - avoided(other) || free(other) - free(one) || compareText(one.name, other.name);
  return order < 0;
}

/** What stands in the way of a job that fits on no host now. */
function obstacle(ask: Ask, offers: readonly Offer[]): Exclude<Fit, { kind: 'fits' }> {
  const wanted = Object.entries(ask.hostLabels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
  const selected = offers.filter((offer) => matches(ask.hostLabels, offer.labels));
  if (selected.length === 0) {
    const message =
      offers.length === 0
        ? 'there is no IncusHost'
        : `no IncusHost has the labels ${wanted} of spec.hostSelector`;
    return { kind: 'waits', reason: 'NoMatchingHost', message, hosts: [] };
  }
  const admitting = selected.filter(
    (offer) => offer.namespaceLabels === undefined || matches(offer.namespaceLabels, ask.namespaceLabels),
  );
  if (admitting.length === 0) {
    return {
      kind: 'waits',
      reason: 'NamespaceNotAllowed',
      message: `spec.allowedNamespaces of ${names(selected)} does not admit the job's namespace`,
      hosts: [],
    };
  }
  const able = admitting.filter((offer) => offer.instanceTypes?.includes(ask.type) ?? true);
  if (able.length === 0) {
    return {
      kind: 'never',
      reason: 'InstanceTypeUnsupported',
      message: `${names(admitting)} cannot run instances of type ${ask.type}: Incus reports only ${[
        ...new Set(admitting.flatMap((offer) => offer.instanceTypes ?? [])),
      ].join(', ')}`,
    };
  }
  const large = able.filter(({ largest }) => isLargeEnough(largest, ask));
  if (large.length === 0) {
    return {
      kind: 'never',
      reason: 'ExceedsCapacity',
      message: `${names(able)} is smaller than the instance asked for: ${able.slice(0, 5).map(sizeInWords).join('; ')}`,
    };
  }
  const hosts = large.filter(({ unschedulable }) => unschedulable === undefined).map(({ name }) => name);
  const connected = large.filter((offer) => offer.up);
  if (connected.length === 0) {
    return { kind: 'waits', reason: 'HostUnreachable', message: `${names(large)} is not connected`, hosts };
  }
  const open = connected.filter((offer) => offer.refusal(ask.namespace) === undefined);
  if (open.length === 0) {
    return {
      kind: 'waits',
      reason: 'HostUnschedulable',
      message: `${names(connected)} takes no new jobs: ${connected[0]?.refusal(ask.namespace) ?? ''}`,
      hosts,
    };
  }
  const message = open.slice(0, 5).map(fillInWords).join('; ');
  return { kind: 'waits', reason: 'NoFreeSlot', message, hosts };
}

/** The order in which jobs of one namespace are admitted: priority, then age, then name. */
export function byRank(a: Demand, b: Demand): number {
  return b.priority - a.priority || byAge(a, b);
}

/** The oldest job first. */
export function byAge(a: Demand, b: Demand): number {
  return a.createdAt - b.createdAt || compareText(a.key, b.key);
}

/** The order of strings by their UTF-16 units: much cheaper than that of a language. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function isLargeEnough(largest: Offer['largest'], { cpu, memoryBytes, rootDiskBytes }: Ask): boolean {
  return cpu <= largest.cpu && memoryBytes <= largest.memoryBytes && rootDiskBytes <= largest.rootDiskBytes;
}

/** `h gives an instance at most 8 CPUs, 57.6GiB of memory and a root disk of 200.0GiB`. */
function sizeInWords({ name, largest }: Offer): string {
  const { cpu, memoryBytes, rootDiskBytes } = largest;
  const parts = [
    ...(cpu === Infinity ? [] : [`${cpu} CPUs`]),
    ...(memoryBytes === Infinity ? [] : [`${inGiB(memoryBytes)} of memory`]),
    ...(rootDiskBytes === Infinity ? [] : [`a root disk of ${inGiB(rootDiskBytes)}`]),
  ];
  return `${name} gives one instance at most ${parts.join(', ')}`;
}

/** `h uses 2 of 4 slots`, and what else it counts of which all of the host may be taken. */
function fillInWords({ name, used, capacity }: Offer): string {
  const memory =
    capacity.memoryBytes === Infinity
      ? ''
      : `, ${inGiB(used.memoryBytes)} of ${inGiB(capacity.memoryBytes)} of memory`;
  const cpu = capacity.cpu === Infinity ? '' : `, ${used.cpu} of ${capacity.cpu} CPUs`;
  const slots = `${name} uses ${used.instances} of ${capacity.instances} slots`;
  return used.instances < capacity.instances ? slots + cpu + memory : slots;
}

function inGiB(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)}GiB`;
}

export function matches(
  wanted: Readonly<Record<string, string>>,
  labels: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}

function free({ capacity, used }: Offer): number {
  return capacity.instances - used.instances;
}

function names(offers: readonly Offer[]): string {
  const shown = offers.slice(0, 5).map((offer) => offer.name);
  return shown.join(', ') + (offers.length > 5 ? ` and ${offers.length - 5} more` : '');
}
