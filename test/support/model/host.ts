import PQueue from 'p-queue';
import type { Clock } from '../../../controller/clock.ts';
import type { Host, HostOptions, HostState } from '../../../controller/hosts/host.ts';
import { perform } from '../../../controller/hosts/perform.ts';
import { Watch } from '../../../controller/hosts/watch.ts';
import type { IncusClient } from '../../../controller/incus/client.ts';
import type { Command } from '../../../controller/incus/commands.ts';
import { IncusError } from '../../../controller/incus/errors.ts';
import { FairQueue, sharesOf } from '../../../controller/incus/fair-queue.ts';
import { Inventory } from '../../../controller/incus/inventory.ts';
import type { CommandOutcome } from '../../../controller/incus/outcome.ts';
import type { IncusEvent, Operation } from '../../../controller/incus/schemas.ts';
import type { ModelIncus } from './incus.ts';
import type { Wire } from './wire.ts';

/** Which model of Incus a host's socket path leads to, by whom it is used, and over which wire. */
export interface Socket {
  incus: ModelIncus;
  wire: Wire;
  sender: string;
}
/** By socket path. */
export const sockets = new Map<string, Socket>();

const lost = () => new IncusError('Unknown', 'the answer was lost');

/**
 * Stands in for hosts/host.ts: the same inventory, watch and commands, over a model of Incus in place of a connection.
 * When it connects, and when its events arrive, the world decides.
 */
export class ModelHost implements Pick<
  Host,
  'name' | 'inventory' | 'spec' | 'state' | 'observedAt' | 'update' | 'perform' | 'close'
> {
  readonly name: string;
  readonly inventory = new Inventory();
  readonly socket: Socket;
  state: HostState;
  readonly #options: HostOptions;
  #session: ModelSession | undefined;
  #closed = false;
  /** The session that is being opened. */
  opening: ModelSession | undefined;

  constructor(options: HostOptions) {
    this.name = options.name;
    this.#options = options;
    this.socket = sockets.get(options.spec.connection.local?.socketPath ?? '')!;
    this.state = { kind: 'down', since: options.clock.now(), reason: 'Connecting', message: 'connecting' };
  }

  get spec() {
    return this.#options.spec;
  }

  get observedAt(): number {
    return this.#options.clock.now();
  }

  get current(): ModelSession | undefined {
    return this.#session;
  }

  update(): boolean {
    return true;
  }

  async perform(command: Command, signal?: AbortSignal): Promise<CommandOutcome> {
    const session = this.#session;
    if (!session) return { kind: 'unknown', message: `host ${this.name} is not connected` };
    const ground = {
      client: session.client,
      clock: this.#options.clock,
      link: { resolve: (path: string) => Promise.resolve({ path, directory: true }) },
      watch: session.watch,
      inventory: this.inventory,
      host: this.name,
      project: this.spec.project,
      grants: this.spec,
      namespaceLabels: this.#options.namespaceLabels,
      controllerId: this.#options.controllerId,
      logs: undefined,
      turns: { logs: new PQueue(), archives: new FairQueue(sharesOf(4)) },
      artifacts: undefined,
    };
    return perform(command, ground, signal);
  }

  close(): Promise<void> {
    this.#closed = true;
    (this.#session ?? this.opening)?.close();
    return Promise.resolve();
  }

  /** Opens a session, as Session.open does: events first, then lists. */
  async connect(): Promise<void> {
    if (this.#closed || this.opening || this.#session) return;
    const session: ModelSession = new ModelSession(this, this.#options.clock, (instance) => {
      if (this.#session === session) this.#options.events.changed(this.name, instance);
    });
    this.opening = session;
    try {
      await session.watch.relist();
    } catch {
      session.close();
      return;
    } finally {
      this.opening = undefined;
    }
    if (session.over) return;
    this.#session = session;
    const { type } = this.socket.incus;
    this.state = {
      kind: 'up',
      since: this.#options.clock.now(),
      version: 'model',
      instanceTypes: type === 'container' ? ['Container'] : ['VirtualMachine'],
      project: {},
    };
    this.#options.events.changed(this.name, undefined);
  }

  /** The session has ended. */
  ended(session: ModelSession): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    this.state = {
      kind: 'down',
      since: this.#options.clock.now(),
      reason: 'Unreachable',
      message: 'the connection was lost',
    };
    this.#options.events.changed(this.name, undefined);
  }
}

/** A model of a connection: what it carries, and the real watch over it. */
export class ModelSession {
  /** Events on their way. */
  events: IncusEvent[] = [];
  over = false;
  readonly watch: Watch;
  readonly #host: ModelHost;
  readonly #listener: (event: IncusEvent) => void;

  constructor(host: ModelHost, clock: Clock, changed: (instance: string | undefined) => void) {
    this.#host = host;
    this.#listener = (event) => this.events.push(event);
    host.socket.incus.listeners.add(this.#listener);
    this.watch = new Watch(
      this.client,
      host.inventory,
      clock,
      { changed, lifecycle: () => undefined, drifted: () => undefined },
      () => this.close(),
    );
  }

  /** The part of a client that commands and the watch use. */
  get client(): IncusClient {
    const { incus } = this.#host.socket;
    const ask = <T>(words: string, effect: () => T) => this.#ask(words, effect);
    return {
      instances: () => ask('list the instances', () => incus.list()),
      operations: () =>
        ask('list the operations', () =>
          [...incus.operations.values()].map((operation) => ({ ...operation })),
        ),
      start: (request: { method: string; path: string; body?: unknown }): Promise<Operation> => {
        const name = request.path.split('?')[0]?.split('/')[3] ?? '';
        const body = request.body as { name: string } & Parameters<ModelIncus['create']>[0];
        if (request.method === 'DELETE') return ask(`delete ${name}`, () => incus.remove(name));
        if (request.method === 'PUT') return ask(`stop ${name}`, () => incus.stop(name));
        if (request.path.includes('/exec'))
          return ask(`launch the runner in ${name}`, () => incus.exec(name));
        return ask(`create ${body.name}`, () => incus.create(body));
      },
      instance: (name: string) => ask(`read ${name}`, () => incus.shown(incus.instance(name))),
      processes: (name: string) => ask(`probe ${name}`, () => (incus.instance(name).booted ? 7 : -1)),
      image: () => ask('ask for the image', () => ({ fingerprint: 'f'.repeat(64), type: incus.type })),
      hasProfile: () => Promise.resolve(true),
      instanceLog: (name: string) => ask(`read the log of ${name}`, () => incus.log(name)),
      readFile: (name: string, path: string) => ask(`read ${path} of ${name}`, () => incus.file(name, path)),
    } as unknown as IncusClient;
  }

  /** The next event arrives. */
  receive(): void {
    const event = this.events.shift();
    if (event) this.watch.receive(event);
  }

  close(): void {
    if (this.over) return;
    this.over = true;
    this.events = [];
    this.#host.socket.incus.listeners.delete(this.#listener);
    this.watch.end();
    this.#host.ended(this);
  }

  #ask<T>(words: string, effect: () => T): Promise<T> {
    const { incus, wire, sender } = this.#host.socket;
    if (this.over || !incus.up) return Promise.reject(lost());
    return wire.send(
      sender,
      `${words} on ${incus.name}`,
      () => {
        if (!incus.up) throw lost();
        return effect();
      },
      lost,
    );
  }
}
