import type { IncusHost } from '../api/incushost.ts';
import type { Clock } from '../clock.ts';
import type { Command } from '../incus/commands.ts';
import type { InstanceView } from '../incus/inventory.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import type { Demand } from './admission.ts';
import type { Artifacts } from './artifacts.ts';
import type { Refusal } from './breaker.ts';
import { Host, type HostEvents, type HostState } from './host.ts';
import type { LiveLogs } from './live-logs.ts';
import type { ReadKey } from './link.ts';
import { candidateOf } from './candidate.ts';
import { Scheduler, type Admission, type Candidate } from './scheduler.ts';

/** An instance of this installation, and the host that has it. */
export interface Located {
  host: string;
  instance: InstanceView;
}

export interface PoolOptions {
  controllerId: string;
  readKey: ReadKey;
  clock: Clock;
  events: HostEvents;
  /** Labels of a namespace, as they are now. */
  namespaceLabels: (namespace: string) => Readonly<Record<string, string>>;
  logs?: LiveLogs;
  artifacts?: Artifacts;
  /** Has a job looked at: it waited and now has a slot, or what it waits for has changed. */
  wake: (key: string) => void;
}

interface Member {
  host: Host;
  resource: IncusHost;
}

/** All Incus hosts: their connections, and the scheduler that gives their slots to jobs. */
export class HostPool {
  readonly #options: PoolOptions;
  readonly #hosts = new Map<string, Member>();
  readonly #scheduler: Scheduler;
  readonly #events: HostEvents;

  constructor(options: PoolOptions) {
    this.#options = options;
    const { clock, wake, events } = options;
    this.#scheduler = new Scheduler({
      clock,
      wake,
      hosts: () => [...this.#hosts.values()].map((member) => this.#candidate(member)),
      onRefusal: (host) => events.changed(host, undefined),
    });
    this.#events = {
      command: (...words) => events.command(...words),
      drift: (...words) => events.drift(...words),
      eventLag: (...words) => events.eventLag(...words),
      request: (...words) => events.request(...words),
      changed: (host, instance) => {
        events.changed(host, instance);
        if (instance === undefined) this.#scheduler.hostsChanged();
        else this.#scheduler.instanceChanged(instance);
      },
    };
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
      const host = new Host({ ...this.#options, name, spec: resource.spec, events: this.#events });
      this.#hosts.set(name, { host, resource });
      this.#scheduler.forgetHost(name);
      await known?.host.close();
    }
    this.#scheduler.hostsChanged();
  }

  async remove(name: string): Promise<void> {
    const known = this.#hosts.get(name);
    this.#hosts.delete(name);
    this.#scheduler.forgetHost(name);
    this.#events.changed(name, undefined);
    await known?.host.close();
  }

  async close(): Promise<void> {
    this.#scheduler.close();
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

  async perform(name: string, command: Command, signal?: AbortSignal): Promise<CommandOutcome> {
    const member = this.#hosts.get(name);
    if (!member) return { kind: 'unknown', message: `there is no IncusHost ${name}` };
    const outcome = await member.host.perform(command, signal);
    if (command.verb !== 'create') return outcome;
    const { namespace } = command.wanted;
    if (outcome.kind === 'done') this.#scheduler.created(name, namespace, undefined);
    // What was lost on the way says nothing of Incus, and what was refused is wrong with the job.
    if (outcome.kind === 'failed') {
      this.#scheduler.created(name, namespace, outcome.message, outcome.reason === 'StartFailed');
    }
    return outcome;
  }

  /** Why a host is given no jobs although it is connected and may take some; undefined if it is given them. */
  refusalOf(name: string): Refusal | undefined {
    return this.#scheduler.refusalOf(name);
  }

  /** Every instance that this installation made for a job, on hosts that are connected. */
  instancesOf(uid: string): Located[] {
    return this.ours().filter(({ instance }) => instance.labels['uid'] === uid);
  }

  /** Every instance of this installation, on hosts that are connected. */
  ours(): Located[] {
    return this.instances().filter(({ instance }) => instance.labels['controller'] === this.controllerId);
  }

  /** Every instance of anybody in the projects of the hosts that are connected. */
  instances(): Located[] {
    return this.all().flatMap(({ name: host, state, inventory }) =>
      state.kind === 'up' ? [...inventory.all()].map((instance) => ({ host, instance })) : [],
    );
  }

  /** Asks for a slot. Ask again at any time: the answer is the current one. */
  admit(demand: Demand, instance: string): Admission {
    return this.#scheduler.admit(demand, instance);
  }

  /** Notes that a job holds a slot, as its status says. */
  occupy(...[key, instance, slot]: Parameters<Scheduler['occupy']>): void {
    this.#scheduler.occupy(key, instance, slot);
  }

  /**
   * Takes a job out of the queue. A slot that it was handed and has not taken up goes to the next; one that it holds
   * stays until {@link release}.
   */
  withdraw(key: string): void {
    this.#scheduler.withdraw(key);
  }

  /** Gives a slot back, once its instance is gone. */
  release(instance: string): void {
    this.#scheduler.release(instance);
  }

  /** Jobs in the queue. */
  waitingKeys(): string[] {
    return this.#scheduler.waitingKeys();
  }

  /** Slots of one host that are taken. */
  used(name: string): number {
    return this.#scheduler.used(name);
  }

  #candidate({ host, resource }: Member): Candidate {
    return { ...candidateOf(resource, host.state), instances: this.#oursOn(host) };
  }

  *#oursOn({ inventory }: Host): Generator<string, undefined> {
    for (const { name, labels } of inventory.all()) {
      if (labels['controller'] === this.#options.controllerId) yield name;
    }
  }
}
