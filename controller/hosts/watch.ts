import type { Clock } from '../clock.ts';
import type { IncusClient } from '../incus/client.ts';
import { IncusError } from '../incus/errors.ts';
import type { EndedOperation, InstanceView, Inventory } from '../incus/inventory.ts';
import { driftBetween, type SeenDrift } from '../incus/drift.ts';
import type { IncusEvent, Instance, Operation } from '../incus/schemas.ts';

/** What a watch tells its host. */
export interface WatchEvents {
  /** Something about an instance changed; undefined: anything may have. */
  changed(instance: string | undefined): void;
  /** Something happened to an instance. Told before the inventory shows it. */
  lifecycle(action: string, instance: string): void;
  /** An instance was read anew and is otherwise than before. */
  drifted(instance: string, what: SeenDrift): void;
}

/** An instance that events keep coming about is read at most so often. */
const refreshTries = 5;
/** Events kept while a list is on its way. With more, a new connection begins from a new list. */
const mostHeld = 100_000;
/** After how long an instance of which Incus could not tell what it is at is read again, in milliseconds. */
const untoldPause = 2_000;

/**
 * Keeps a host's inventory current over one connection: a list of everything, then events, and lists again. Once it
 * has ended, nothing that still comes in over its connection reaches the inventory: a newer watch keeps that by then,
 * and would never be told of the end of an operation that an older one had put there.
 */
export class Watch {
  readonly #client: Pick<IncusClient, 'instances' | 'operations' | 'instance'>;
  readonly #inventory: Inventory;
  readonly #clock: Clock;
  readonly #events: WatchEvents;
  /** Ends the connection, when what it still tells cannot be relied on. */
  readonly #giveUp: () => void;
  readonly #waiting = new Map<string, (ended: EndedOperation | undefined) => void>();
  /** Events that arrive while a list is on its way. They are applied on top of it. */
  #held: IncusEvent[] | undefined = [];
  #relisting: Promise<void> | undefined;
  /** Instances that are to be read again, and how to call that off. */
  readonly #untold = new Map<string, () => void>();
  #over = false;

  constructor(
    client: Pick<IncusClient, 'instances' | 'operations' | 'instance'>,
    inventory: Inventory,
    clock: Clock,
    events: WatchEvents,
    giveUp: () => void,
  ) {
    this.#client = client;
    this.#inventory = inventory;
    this.#clock = clock;
    this.#events = events;
    this.#giveUp = giveUp;
  }

  /** Takes in an event. Those before the first list wait for it. */
  receive(event: IncusEvent): void {
    if (this.#over) return;
    if (!this.#held) this.#apply(event);
    else if (this.#held.length < mostHeld) this.#held.push(event);
    else this.#giveUp();
  }

  /** Lists everything and takes it as the truth. Two lists at once are one. */
  relist(): Promise<void> {
    this.#relisting ??= this.#list().finally(() => {
      this.#relisting = undefined;
    });
    return this.#relisting;
  }

  /** Looks again, because the answer to a request was lost. A server that does not answer this either is gone. */
  async lookAgain(): Promise<void> {
    await this.relist().catch(() => this.#giveUp());
  }

  /** Notes an operation that an answer tells of. Rejects with Unknown if the watch has ended. */
  began(operation: Operation): void {
    this.#mustGoOn();
    this.#inventory.operation(operation);
  }

  /** Resolves when an operation has ended. Rejects with Unknown if the watch ends first. */
  async operationEnd(operation: Operation): Promise<EndedOperation> {
    this.began(operation);
    const ended =
      this.#inventory.ended(operation.id) ??
      (await new Promise<EndedOperation | undefined>((resolve) => {
        this.#waiting.set(operation.id, resolve);
      }));
    if (!ended) throw new IncusError('Unknown', 'the connection was lost before the operation ended');
    return ended;
  }

  /** Reads one instance anew. */
  async refresh(name: string): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const before = this.#inventory.get(name);
      const instance = await this.#read(name);
      this.#mustGoOn();
      // An event that came meanwhile may be newer than what was read.
      if (this.#inventory.get(name) !== before && tries < refreshTries) continue;
      this.#inventory.put(name, instance);
      this.#compare(before);
      this.#readAgainIfUntold(name);
      break;
    }
    this.#events.changed(name);
  }

  /** The connection has ended: what is not known by now is unknown. */
  end(): void {
    this.#over = true;
    for (const resolve of this.#waiting.values()) resolve(undefined);
    this.#waiting.clear();
    for (const cancel of this.#untold.values()) cancel();
    this.#untold.clear();
  }

  async #list(): Promise<void> {
    this.#held ??= [];
    const [instances, operations] = await Promise.all([this.#client.instances(), this.#client.operations()]);
    this.#mustGoOn();
    const before = [...this.#inventory.all()];
    this.#inventory.replace(instances, operations);
    for (const instance of before) this.#compare(instance);
    const held = this.#held;
    this.#held = undefined;
    for (const event of held) this.#apply(event);
    for (const id of [...this.#waiting.keys()]) this.#settle(id, !this.#inventory.isRunning(id));
    for (const { name } of this.#inventory.all()) this.#readAgainIfUntold(name);
    this.#events.changed(undefined);
  }

  /** Tells what is otherwise than it was, be it that an event told of it, or a list or a read without one. */
  #compare(before: InstanceView | undefined): void {
    const after = before && this.#inventory.get(before.name);
    if (!after) return;
    for (const what of driftBetween(before, after)) this.#events.drifted(after.name, what);
  }

  /** Incus tells of a change, but not that it can tell again. */
  #readAgainIfUntold(name: string): void {
    if (this.#inventory.get(name)?.status !== 'Other' || this.#untold.has(name)) return;
    const cancel = this.#clock.after(untoldPause, () => {
      this.#untold.delete(name);
      this.refresh(name).catch(() => this.#giveUp());
    });
    this.#untold.set(name, cancel);
  }

  async #read(name: string): Promise<Instance | undefined> {
    try {
      return await this.#client.instance(name);
    } catch (error) {
      if (error instanceof IncusError && error.kind === 'NotFound') return undefined;
      throw error;
    }
  }

  #apply(event: IncusEvent): void {
    if (event.type === 'lifecycle') this.#events.lifecycle(event.metadata.action, event.metadata.name ?? '');
    const change = this.#inventory.apply(event);
    if (event.type === 'operation') this.#settle(event.metadata.id, false);
    if (!change) return;
    if (change.mustRead) this.refresh(change.instance).catch(() => this.#giveUp());
    else this.#events.changed(change.instance);
  }

  /** Tells whoever waits for an operation that it has ended, or, when `gone`, that nobody knows how. */
  #settle(id: string, gone: boolean): void {
    const ended = this.#inventory.ended(id);
    if (!ended && !gone) return;
    this.#waiting.get(id)?.(ended);
    this.#waiting.delete(id);
  }

  #mustGoOn(): void {
    if (this.#over) throw new IncusError('Unknown', 'the connection has ended');
  }
}
