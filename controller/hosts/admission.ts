import type { InstanceType } from './host.ts';

/** What a job asks of a host. */
export interface Demand {
  /** `namespace/name` of the job. */
  key: string;
  namespaceLabels: Readonly<Record<string, string>>;
  hostLabels: Readonly<Record<string, string>>;
  type: InstanceType;
  cpu: number;
  memoryBytes: number;
  priority: number;
  /** Hosts that failed the job before: only if no other has room. */
  avoid: readonly string[];
  /** Milliseconds since the epoch. */
  createdAt: number;
}

/** What a host offers. */
export interface Offer {
  name: string;
  labels: Readonly<Record<string, string>>;
  /** Whether it is connected. Nothing is sent to a host that is not. */
  up: boolean;
  /** Whether it may take new jobs at all; the reason when not. */
  unschedulable: string | undefined;
  /** undefined while not known. */
  instanceTypes: readonly InstanceType[] | undefined;
  /** Labels a namespace needs; undefined admits all. */
  namespaceLabels: Readonly<Record<string, string>> | undefined;
  capacity: { instances: number; cpu: number; memoryBytes: number };
  used: { instances: number; cpu: number; memoryBytes: number };
}

export type Fit =
  | { kind: 'fits'; host: string }
  /** A host could run it, but not now. */
  | { kind: 'waits'; reason: string; message: string }
  /** No host can run it, whatever happens to the ones there are. */
  | { kind: 'never'; reason: string; message: string };

/**
 * Finds the host for a job: of those that admit it and have room, one that has not failed it yet, and of these the one
 * with the most free slots.
 * Says otherwise what stands in the way, beginning with what concerns most hosts.
 */
export function fit(demand: Demand, offers: readonly Offer[]): Fit {
  const wanted = Object.entries(demand.hostLabels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
  const selected = offers.filter((offer) => matches(demand.hostLabels, offer.labels));
  if (selected.length === 0) {
    const message =
      offers.length === 0
        ? 'there is no IncusHost'
        : `no IncusHost has the labels ${wanted} of spec.hostSelector`;
    return { kind: 'waits', reason: 'NoMatchingHost', message };
  }
  const admitting = selected.filter(
    (offer) => offer.namespaceLabels === undefined || matches(offer.namespaceLabels, demand.namespaceLabels),
  );
  if (admitting.length === 0) {
    return {
      kind: 'waits',
      reason: 'NamespaceNotAllowed',
      message: `spec.allowedNamespaces of ${names(selected)} does not admit the job's namespace`,
    };
  }
  const able = admitting.filter((offer) => offer.instanceTypes?.includes(demand.type) ?? true);
  if (able.length === 0) {
    return {
      kind: 'never',
      reason: 'InstanceTypeUnsupported',
      message: `${names(admitting)} cannot run instances of type ${demand.type}: Incus reports only ${[
        ...new Set(admitting.flatMap((offer) => offer.instanceTypes ?? [])),
      ].join(', ')}`,
    };
  }
  const large = able.filter(
    ({ capacity }) => demand.cpu <= capacity.cpu && demand.memoryBytes <= capacity.memoryBytes,
  );
  if (large.length === 0) {
    return {
      kind: 'never',
      reason: 'ExceedsCapacity',
      message: `${names(able)} is smaller than the instance asked for (spec.capacity)`,
    };
  }
  const connected = large.filter((offer) => offer.up);
  if (connected.length === 0) {
    return { kind: 'waits', reason: 'HostUnreachable', message: `${names(large)} is not connected` };
  }
  const open = connected.filter((offer) => offer.unschedulable === undefined);
  if (open.length === 0) {
    return {
      kind: 'waits',
      reason: 'HostUnschedulable',
      message: `${names(connected)} takes no new jobs: ${connected[0]?.unschedulable ?? ''}`,
    };
  }
  const avoided = ({ name }: Offer) => Number(demand.avoid.includes(name));
  const best = open
    .filter(
      ({ capacity, used }) =>
        used.instances + 1 <= capacity.instances &&
        used.cpu + demand.cpu <= capacity.cpu &&
        used.memoryBytes + demand.memoryBytes <= capacity.memoryBytes,
    )
    .sort((a, b) => avoided(a) - avoided(b) || free(b) - free(a) || a.name.localeCompare(b.name))[0];
  if (best) return { kind: 'fits', host: best.name };
  const slots = open.map(
    ({ name, used, capacity }) => `${name} uses ${used.instances} of ${capacity.instances} slots`,
  );
  return { kind: 'waits', reason: 'NoFreeSlot', message: slots.slice(0, 5).join('; ') };
}

/** The order in which jobs are admitted: priority, then age, then name. */
export function byRank(a: Demand, b: Demand): number {
  return b.priority - a.priority || a.createdAt - b.createdAt || a.key.localeCompare(b.key);
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
