import { once } from 'node:events';
import PQueue from 'p-queue';
import type WebSocket from 'ws';
import type { Clock } from '../clock.ts';
import { IncusClient } from '../incus/client.ts';
import { IncusError } from '../incus/errors.ts';
import { readEvents } from '../incus/events.ts';
import { FairQueue, sharesOf } from '../incus/fair-queue.ts';
import { HttpPipe } from '../incus/http.ts';
import type { Inventory } from '../incus/inventory.ts';
import type { Project, Server } from '../incus/schemas.ts';
import { askFacts, type HostFacts } from './host-facts.ts';
import type { Link } from './link.ts';
import { Watch, type WatchEvents } from './watch.ts';

/** What a session tells its host. */
export interface SessionEvents extends WatchEvents {
  /** Milliseconds between an event's own time and its arrival. */
  eventLag(milliseconds: number): void;
  request(method: string, path: string): void;
  /** The host was asked again what it is. */
  facts(facts: HostFacts): void;
}

/** Whose turn it is to use a connection that carries only so much at once. */
export interface Turns {
  /** To have its log followed. */
  logs: PQueue;
  /** To have its artifacts read. A guest may be slow with them, so namespaces share these turns. */
  archives: FairQueue;
}

/** How often everything is listed again, in case an event was lost, in milliseconds. */
const relistInterval = 5 * 60_000;
/**
 * When everything is listed for the second time. Incus says that it sends events a moment before it does (it adds the
 * listener after the upgrade to WebSocket): what happened between the first list and that moment is told by nobody.
 */
const secondLook = 2_000;

/** One life of the connection to an Incus server: the link, the event stream, and the watch that both feed. */
export class Session {
  readonly client: IncusClient;
  readonly watch: Watch;
  readonly server: Server;
  readonly project: Project;
  /** As they were when the session began; {@link SessionEvents} has the newer ones. */
  readonly facts: HostFacts;
  readonly link: Link;
  readonly turns: Turns;
  readonly #pipe: HttpPipe;
  readonly #socket: WebSocket;
  readonly #clock: Clock;
  readonly #events: SessionEvents;
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
      facts: HostFacts;
    },
    inventory: Inventory,
    events: SessionEvents,
    clock: Clock,
  ) {
    this.link = parts.link;
    const { maxLogs, maxArchives } = parts.link.capacity;
    this.turns = {
      logs: new PQueue({ concurrency: maxLogs }),
      archives: new FairQueue(sharesOf(maxArchives)),
    };
    this.client = parts.client;
    this.server = parts.server;
    this.project = parts.project;
    this.facts = parts.facts;
    this.#events = events;
    this.#pipe = parts.pipe;
    this.#socket = parts.socket;
    this.#clock = clock;
    this.watch = new Watch(this.client, inventory, clock, events, () => this.close());
    const stream = readEvents(
      this.#socket,
      (event) => {
        events.eventLag(clock.now() - Date.parse(event.timestamp));
        this.watch.receive(event);
      },
      () => undefined,
    );
    this.#ended = Promise.race([stream.then((why) => `the event stream ended: ${why}`), this.link.closed]);
    void this.#ended.then(() => this.close());
  }

  /** Connects, follows the events and lists everything, in this order, so that nothing falls between. */
  static async open(
    link: Link,
    projectName: string,
    inventory: Inventory,
    events: SessionEvents,
    clock: Clock,
  ): Promise<Session> {
    const { maxRequests: requests, maxReads: reads } = link.capacity;
    const namespaceOf = (instance: string) => inventory.get(instance)?.labels['namespace'] ?? '';
    const pipe = new HttpPipe(() => link.dial(), { requests, reads, clock, namespaceOf });
    const client = new IncusClient(pipe, projectName, (method, path) => events.request(method, path));
    let session: Session | undefined;
    try {
      const server = await client.server();
      if (server.auth !== 'trusted') {
        throw new IncusError('Forbidden', 'Incus answers, but does not trust this connection');
      }
      const [project, facts] = await Promise.all([client.project(), askFacts(client)]);
      const socket = await client.events();
      // It listens before the stream opens, so that no event finds nobody there.
      session = new Session({ link, pipe, socket, client, server, project, facts }, inventory, events, clock);
      await Promise.race([
        once(socket, 'open'),
        session.#ended.then((why) => {
          throw new IncusError('Unknown', why);
        }),
      ]);
      await session.watch.relist();
      return session;
    } catch (error) {
      session?.close();
      pipe.close();
      throw error;
    }
  }

  /** Follows the server until the session ends, listing everything now and then. Returns why it ended. */
  async follow(): Promise<string> {
    let cancel = () => {};
    const lookAfter = (milliseconds: number) => {
      // Spread out, so that the hosts of an installation are not listed all at once.
      cancel = this.#clock.after(milliseconds * (0.8 + 0.4 * Math.random()), () => {
        this.watch.relist().then(
          () => {
            lookAfter(relistInterval);
            // Not before the list, which must come soon after a connection was made and never waits for this.
            void askFacts(this.client).then((facts) => this.#over || this.#events.facts(facts));
          },
          () => this.close(),
        );
      });
    };
    lookAfter(secondLook);
    const why = await this.#ended;
    cancel();
    return why;
  }

  close(): void {
    if (this.#over) return;
    this.#over = true;
    this.watch.end();
    this.#socket.terminate();
    this.#pipe.close();
    this.link.close();
  }
}
