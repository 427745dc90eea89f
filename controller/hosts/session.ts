import { once } from 'node:events';
import type WebSocket from 'ws';
import type { Clock } from '../clock.ts';
import { IncusClient } from '../incus/client.ts';
import { IncusError } from '../incus/errors.ts';
import { readEvents } from '../incus/events.ts';
import { HttpPipe } from '../incus/http.ts';
import type { EndedOperation, Inventory } from '../incus/inventory.ts';
import type { IncusEvent, Instance, Operation, Project, Server } from '../incus/schemas.ts';
import type { Link } from './link.ts';

/** What a session tells its host. */
export interface SessionEvents {
  /** Something about an instance changed; undefined: anything may have. */
  changed(instance: string | undefined): void;
  /** Something happened to an instance. Told before the inventory shows it. */
  lifecycle(action: string, instance: string): void;
  /** An instance was read anew and has other devices than before. */
  devicesChanged(instance: string): void;
  /** Milliseconds between an event's own time and its arrival. */
  eventLag(milliseconds: number): void;
  request(method: string, path: string): void;
}

/** An instance that events keep coming about is read at most so often. */
const refreshTries = 5;
/** How often everything is listed again, in case an event was lost, in milliseconds. */
const relistInterval = 5 * 60_000;

/**
 * One life of the connection to an Incus server: the link, the event stream and the inventory it keeps current.
 * Ends when either breaks; what is not known by then is unknown.
 */
export class Session {
  readonly client: IncusClient;
  readonly server: Server;
  readonly project: Project;
  readonly link: Link;
  readonly #pipe: HttpPipe;
  readonly #socket: WebSocket;
  readonly #inventory: Inventory;
  readonly #events: SessionEvents;
  readonly #clock: Clock;
  readonly #waiting = new Map<string, (ended: EndedOperation | undefined) => void>();
  /** Events that arrive while a list is on its way. They are applied on top of it. */
  #held: IncusEvent[] | undefined;
  #relisting: Promise<void> | undefined;
  #over = false;
  readonly #ended: Promise<string>;

  private constructor(
    parts: {
      link: Link;
      pipe: HttpPipe;
      socket: WebSocket;
      client: IncusClient;
      server: Server;
      project: Project;
    },
    inventory: Inventory,
    events: SessionEvents,
    clock: Clock,
    stream: Promise<string>,
  ) {
    this.link = parts.link;
    this.client = parts.client;
    this.server = parts.server;
    this.project = parts.project;
    this.#pipe = parts.pipe;
    this.#socket = parts.socket;
    this.#inventory = inventory;
    this.#events = events;
    this.#clock = clock;
    this.#ended = Promise.race([stream.then((why) => `the event stream ended: ${why}`), parts.link.closed]);
  }

  /** Connects, follows the events and lists everything, in this order, so that nothing falls between. */
  static async open(
    link: Link,
    projectName: string,
    inventory: Inventory,
    events: SessionEvents,
    clock: Clock,
  ): Promise<Session> {
    const pipe = new HttpPipe(() => link.dial(), link.maxStreams);
    const client = new IncusClient(pipe, projectName, (method, path) => events.request(method, path));
    try {
      const server = await client.server();
      if (server.auth !== 'trusted') {
        throw new IncusError('Forbidden', 'Incus answers, but does not trust this connection');
      }
      const project = await client.project();
      const socket = await client.events();
      // The session is made before the stream opens, so that no event finds nobody listening.
      let session: Session | undefined = undefined as Session | undefined;
      const early: IncusEvent[] = [];
      const stream = readEvents(
        socket,
        (event) => {
          if (session) session.#receive(event);
          else early.push(event);
        },
        () => undefined,
      );
      await Promise.race([
        once(socket, 'open'),
        stream.then((why) => {
          throw new IncusError('Unknown', `the event stream cannot be opened: ${why}`);
        }),
      ]);
      session = new Session(
        { link, pipe, socket, client, server, project },
        inventory,
        events,
        clock,
        stream,
      );
      session.#held = early;
      void session.#ended.then(() => session.close());
      await session.relist();
      return session;
    } catch (error) {
      pipe.close();
      throw error;
    }
  }

  /** Lists everything and takes it as the truth. */
  relist(): Promise<void> {
    this.#relisting ??= this.#list().finally(() => {
      this.#relisting = undefined;
    });
    return this.#relisting;
  }

  /** Looks again, because the answer to a request was lost. A server that does not answer this either is gone. */
  async lookAgain(): Promise<void> {
    await this.relist().catch(() => this.close());
  }

  async #list(): Promise<void> {
    this.#held ??= [];
    const [instances, operations] = await Promise.all([this.client.instances(), this.client.operations()]);
    this.#inventory.replace(instances, operations);
    const held = this.#held;
    this.#held = undefined;
    for (const event of held) this.#apply(event);
    for (const id of [...this.#waiting.keys()]) this.#settle(id, !this.#inventory.isRunning(id));
    this.#events.changed(undefined);
  }

  /** Follows the server until the session ends, listing everything now and then. Returns why it ended. */
  async follow(): Promise<string> {
    let cancel = () => {};
    const again = () => {
      // Spread out, so that the hosts of an installation are not listed all at once.
      cancel = this.#clock.after(relistInterval * (0.8 + 0.4 * Math.random()), () => {
        this.relist().then(again, () => this.close());
      });
    };
    again();
    const why = await this.#ended;
    cancel();
    return why;
  }

  /** Resolves when an operation has ended. Rejects with Unknown if the session ends first. */
  async operationEnd(operation: Operation): Promise<EndedOperation> {
    this.#inventory.operation(operation);
    const known = this.#inventory.ended(operation.id);
    if (known) return known;
    const ended = this.#over
      ? undefined
      : await new Promise<EndedOperation | undefined>((resolve) => {
          this.#waiting.set(operation.id, resolve);
        });
    if (!ended) throw new IncusError('Unknown', 'the connection was lost before the operation ended');
    return ended;
  }

  /** Reads one instance anew. */
  async refresh(name: string): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const before = this.#inventory.get(name);
      const instance = await this.#read(name);
      // An event that came meanwhile may be newer than what was read.
      if (this.#inventory.get(name) !== before && tries < refreshTries) continue;
      this.#inventory.put(name, instance);
      if (before && instance && JSON.stringify(before.devices) !== JSON.stringify(instance.devices)) {
        this.#events.devicesChanged(name);
      }
      break;
    }
    this.#events.changed(name);
  }

  async #read(name: string): Promise<Instance | undefined> {
    try {
      return await this.client.instance(name);
    } catch (error) {
      if (error instanceof IncusError && error.kind === 'NotFound') return undefined;
      throw error;
    }
  }

  close(): void {
    if (this.#over) return;
    this.#over = true;
    for (const resolve of this.#waiting.values()) resolve(undefined);
    this.#waiting.clear();
    this.#socket.terminate();
    this.#pipe.close();
    this.link.close();
  }

  #receive(event: IncusEvent): void {
    this.#events.eventLag(this.#clock.now() - Date.parse(event.timestamp));
    if (this.#held) this.#held.push(event);
    else this.#apply(event);
  }

  #apply(event: IncusEvent): void {
    if (event.type === 'lifecycle') this.#events.lifecycle(event.metadata.action, event.metadata.name ?? '');
    const change = this.#inventory.apply(event);
    if (event.type === 'operation') this.#settle(event.metadata.id, false);
    if (!change) return;
    if (change.mustRead) this.refresh(change.instance).catch(() => this.close());
    else this.#events.changed(change.instance);
  }

  /** Tells whoever waits for an operation that it has ended, or, when `gone`, that nobody knows how. */
  #settle(id: string, gone: boolean): void {
    const ended = this.#inventory.ended(id);
    if (!ended && !gone) return;
    this.#waiting.get(id)?.(ended);
    this.#waiting.delete(id);
  }
}
