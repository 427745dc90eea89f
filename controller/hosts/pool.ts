import { bytesOf } from '../api/text.ts';
import type { IncusHost, IncusHostSpec } from '../api/incushost.ts';
import type { Clock } from '../clock.ts';
import type { Command } from '../incus/commands.ts';
import type { InstanceView } from '../incus/inventory.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import { byRank, fit, type Demand, type Fit, type Offer } from './admission.ts';
import type { Artifacts } from './artifacts.ts';
import { Breaker } from './breaker.ts';
import { Host, type HostEvents, type HostState } from './host.ts';
import type { LiveLogs } from './live-logs.ts';
import type { ReadKey } from './link.ts';

/** An instance of this installation, and the host that has it. */
export interface Located {
  host: string;
  instance: InstanceView;
}

/** Where a job stands: it has a slot, or waits for one at a place in the queue, or never gets one. */
export type Admission =
  | { kind: 'admitted'; host: string }
  | { kind: 'waiting'; reason: string; message: string; position: number; length: number }
  | { kind: 'refused'; reason: string; message: string };

export interface PoolOptions {
  controllerId: string;
  readKey: ReadKey;
  clock: Clock;
  events: HostEvents;
  logs?: LiveLogs;
  artifacts?: Artifacts;
  /** Called with the key of a job that waited and now has a slot. */
  onAdmitted: (key: string) => void;
}

interface Slot {
  host: string;
  cpu: number;
  memoryBytes: number;
}

interface Member {
  host: Host;
  resource: IncusHost;
  breaker: Breaker;
}

/** All Incus hosts: their connections, who holds which slot, and the queue of those who wait for one. */
export class HostPool {
  readonly #options: PoolOptions;
  readonly #hosts = new Map<string, Member>();
  /** Slots by instance name. */
  readonly #slots = new Map<string, Slot>();
  readonly #waiting = new Map<string, { demand: Demand; instance: string; why: Fit }>();
  /** Jobs that were handed a slot and have not taken it up yet: no status says so. */
  readonly #admitted = new Map<string, { host: string; instance: string }>();

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Identity of this installation, which its instances carry. */
  get controllerId(): string {
    return this.#options.controllerId;
  }

  /** Adds a host, or takes up its changed spec. */
  async put(resource: IncusHost): Promise<void> {
    const { name } = resource.metadata;
    const known = this.#hosts.get(name);
    if (known?.host.update(resource.spec)) {
      known.resource = resource;
    } else {
      const { controllerId, readKey, clock, events, logs, artifacts } = this.#options;
      const { spec } = resource;
      const host = new Host({ name, spec, controllerId, readKey, clock, events, logs, artifacts });
      this.#hosts.set(name, { host, resource, breaker: new Breaker() });
      await known?.host.close();
    }
    this.assign();
  }

  async remove(name: string): Promise<void> {
    const known = this.#hosts.get(name);
    this.#hosts.delete(name);
    this.#options.events.changed(name, undefined);
    await known?.host.close();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#hosts.values()].map(({ host }) => host.close()));
  }

  get(name: string): Host | undefined {
    return this.#hosts.get(name)?.host;
  }

  all(): Host[] {
    return [...this.#hosts.values()].map(({ host }) => host);
  }

  state(name: string): HostState | undefined {
    return this.get(name)?.state;
  }

  /** `namespace/name` of the job that an instance of ours was made for. */
  ownerOf(name: string, instance: string): string | undefined {
    const labels = this.get(name)?.inventory.get(instance)?.labels;
    if (labels?.['controller'] !== this.#options.controllerId) return undefined;
    return `${labels['namespace'] ?? ''}/${labels['name'] ?? ''}`;
  }

  async perform(name: string, command: Command): Promise<CommandOutcome> {
    const member = this.#hosts.get(name);
    if (!member) return { kind: 'unknown', message: `there is no IncusHost ${name}` };
    const outcome = await member.host.perform(command);
    if (command.verb === 'create') this.#created(member, outcome);
    return outcome;
  }

  /** Why a host is given no jobs although it is connected and may take some; undefined if it is given them. */
  refusalOf(name: string): string | undefined {
    return this.#hosts.get(name)?.breaker.refusal(this.#options.clock.now());
  }

  #created({ host, breaker }: Member, outcome: CommandOutcome): void {
    const { clock, events } = this.#options;
    if (outcome.kind === 'done' && breaker.succeeded()) events.changed(host.name, undefined);
    // What was lost on the way says nothing of Incus, and what was refused is wrong with the job.
    if (outcome.kind !== 'failed') return;
    const pause = breaker.failed(outcome.message, clock.now(), Math.random());
    if (pause === 0) return;
    events.changed(host.name, undefined);
    clock.after(pause, () => events.changed(host.name, undefined));
  }

  /** Every instance that this installation made for a job, on hosts that are connected. */
  instancesOf(uid: string): Located[] {
    return this.ours().filter(({ instance }) => instance.labels['uid'] === uid);
  }

  /** Every instance of this installation, on hosts that are connected. */
  ours(): Located[] {
    return this.all().flatMap((host) =>
      host.state.kind === 'up'
        ? [...host.inventory.all()]
            .filter((instance) => instance.labels['controller'] === this.#options.controllerId)
            .map((instance) => ({ host: host.name, instance }))
        : [],
    );
  }

  /** Asks for a slot. Ask again at any time: the answer is the current one. */
  admit(demand: Demand, instance: string): Admission {
    const admitted = this.#admitted.get(demand.key);
    if (admitted) return { kind: 'admitted', host: admitted.host };
    const waiting = { demand, instance, why: fit(demand, this.#offers()) };
    this.#waiting.set(demand.key, waiting);
    this.assign();
    const host = this.#admitted.get(demand.key)?.host;
    if (host !== undefined) return { kind: 'admitted', host };
    const { why } = waiting;
    if (why.kind === 'never') {
      this.#waiting.delete(demand.key);
      return { kind: 'refused', reason: why.reason, message: why.message };
    }
    const before = [...this.#waiting.values()].filter((other) => byRank(other.demand, demand) < 0).length;
    return {
      kind: 'waiting',
      reason: why.kind === 'waits' ? why.reason : 'NoFreeSlot',
      message: why.kind === 'waits' ? why.message : 'jobs of higher rank take the free slots',
      position: before + 1,
      length: this.#waiting.size,
    };
  }

  /** Notes that a job holds a slot, as its status says. */
  occupy(key: string, instance: string, slot: Slot): void {
    this.#waiting.delete(key);
    this.#admitted.delete(key);
    this.#slots.set(instance, slot);
  }

  /**
   * Takes a job out of the queue. A slot that it was handed and has not taken up goes to the next; one that it holds
   * stays until {@link release}.
   */
  withdraw(key: string): void {
    this.#waiting.delete(key);
    const admitted = this.#admitted.get(key);
    this.#admitted.delete(key);
    if (admitted) this.release(admitted.instance);
  }

  /** Gives a slot back, once its instance is gone. */
  release(instance: string): void {
    if (this.#slots.delete(instance)) this.assign();
  }

  /** Hands free slots to those who wait, in rank order. */
  assign(): void {
    if (this.#waiting.size === 0) return;
    const offers = this.#offers();
    if (!offers.some((offer) => offer.up && offer.used.instances < offer.capacity.instances)) return;
    for (const waiting of [...this.#waiting.values()].sort((a, b) => byRank(a.demand, b.demand))) {
      const { demand, instance } = waiting;
      waiting.why = fit(demand, offers);
      if (waiting.why.kind !== 'fits') continue;
      const { host } = waiting.why;
      const { clock } = this.#options;
      const breaker = this.#hosts.get(host)?.breaker;
      breaker?.given(clock.now(), Math.random());
      const offer = offers.find(({ name }) => name === host);
      if (offer) {
        offer.unschedulable = breaker?.refusal(clock.now());
        offer.used.instances += 1;
        offer.used.cpu += demand.cpu;
        offer.used.memoryBytes += demand.memoryBytes;
      }
      this.#slots.set(instance, { host, cpu: demand.cpu, memoryBytes: demand.memoryBytes });
      this.#waiting.delete(demand.key);
      this.#admitted.set(demand.key, { host, instance });
      this.#options.onAdmitted(demand.key);
    }
  }

  /** Jobs in the queue. */
  waitingKeys(): string[] {
    return [...this.#waiting.keys()];
  }

  /** Slots of one host that are taken. */
  used(name: string): number {
    return this.#offers().find((offer) => offer.name === name)?.used.instances ?? 0;
  }

  #offers(): Offer[] {
    const now = this.#options.clock.now();
    return [...this.#hosts.values()].map(({ host, resource, breaker }) => {
      const used = { instances: 0, cpu: 0, memoryBytes: 0 };
      const counted = new Set<string>();
      for (const [instance, slot] of this.#slots) {
        if (slot.host !== host.name) continue;
        counted.add(instance);
        used.cpu += slot.cpu;
        used.memoryBytes += slot.memoryBytes;
      }
      // An instance without a slot is one that a job left behind: it takes room until it is swept away.
      for (const instance of host.inventory.all()) {
        if (instance.labels['controller'] === this.#options.controllerId) counted.add(instance.name);
      }
      used.instances = counted.size;
      return offerOf(resource, host.state, used, breaker.refusal(now));
    });
  }
}

/** What a host offers, given its state and how much of it is taken. */
export function offerOf(
  { metadata, spec }: IncusHost,
  state: HostState,
  used: Offer['used'],
  refusal?: string,
): Offer {
  return {
    name: metadata.name,
    labels: metadata.labels ?? {},
    up: state.kind === 'up',
    unschedulable: unschedulable(spec, metadata.deletionTimestamp) ?? refusal,
    instanceTypes: state.kind === 'up' ? state.instanceTypes : undefined,
    namespaceLabels: spec.allowedNamespaces.matchLabels,
    capacity: {
      instances: spec.capacity.instances,
      cpu: spec.capacity.cpu ?? Infinity,
      memoryBytes: spec.capacity.memory === undefined ? Infinity : bytesOf(spec.capacity.memory),
    },
    used,
  };
}

function unschedulable(spec: IncusHostSpec, deleted: string | undefined): string | undefined {
  if (deleted !== undefined) return 'it is being deleted';
  return spec.unschedulable ? 'spec.unschedulable is set' : undefined;
}
