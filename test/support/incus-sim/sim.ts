import { createServer, type Server } from 'node:net';
import { type Duplex, duplexPair } from 'node:stream';
import { type Clock, systemClock } from '../../../controller/clock.ts';
import { Daemon, type Life, type Timings } from './daemon.ts';
import { Faults } from './faults.ts';
import type { GuestScript } from './guest-script.ts';
import { HostFiles } from './host-files.ts';
import { HttpFace } from './http-face.ts';
import type { SimInstance } from './instance.ts';
import { RequestLog } from './request-log.ts';
import { Store } from './store.ts';

/** How a simulated Incus is set up. */
export interface IncusSimOptions {
  clock?: Clock;
  /** Milliseconds that things take. Default: 2 each. */
  timings?: Partial<Timings>;
  /** Whether the host can run virtual machines. Default true. */
  virtualMachines?: boolean;
  /** What guests do: one script for all, or one for each instance by its name. */
  guest?: GuestScript | ((instance: string) => GuestScript);
}

/**
 * A simulated Incus host: the REST API and events of Incus 6.0.4, as they were observed on the real thing, over any
 * number of in-process connections ({@link connect}) or a unix socket ({@link listen}). Its instances run no
 * commands: a {@link GuestScript} says what a guest does.
 */
export class IncusSim {
  readonly store = new Store();
  /** The host's own file system, as disk devices and SFTP see it. */
  readonly host = new HostFiles();
  readonly faults = new Faults();
  readonly requests = new RequestLog();
  readonly daemon: Daemon;
  readonly #face: HttpFace;
  readonly #connections = new Set<Duplex>();
  #listening: Server | undefined;
  #path: string | undefined;
  #down = false;

  constructor(options: IncusSimOptions = {}) {
    const { guest = {}, virtualMachines = true, clock = systemClock } = options;
    this.daemon = new Daemon({
      clock,
      store: this.store,
      host: this.host,
      virtualMachines,
      timings: { create: 2, start: 2, stop: 2, delete: 2, ...options.timings },
      guest: typeof guest === 'function' ? guest : () => guest,
    });
    const { daemon, faults, requests } = this;
    this.#face = new HttpFace({ clock, daemon, faults, requests, kill: () => this.kill() });
  }

  /** Open connections to incusd. */
  get connections(): number {
    return this.#connections.size;
  }

  /** True while incusd is killed. */
  get down(): boolean {
    return this.#down;
  }

  /** Opens a connection, as if by incusd's unix socket. It fails while incusd is down. */
  connect(): Duplex {
    const [near, far] = duplexPair();
    if (this.#down) {
      const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
      setImmediate(() => near.destroy(refused));
      return near;
    }
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroy());
    this.#accept(far);
    return near;
  }

  /** Listens on a unix socket, also again after each restart. */
  async listen(path: string): Promise<void> {
    this.#path = path;
    const server = createServer((socket) => this.#accept(socket));
    this.#listening = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  }

  /** Kills incusd: connections die, operations are forgotten, instances stay. */
  kill(): void {
    this.#down = true;
    this.daemon.kill();
    this.cutConnections();
    this.#listening?.close();
    this.#listening = undefined;
  }

  /** Starts incusd again after {@link kill}. */
  async restart(): Promise<void> {
    this.#down = false;
    if (this.#path !== undefined) await this.listen(this.#path);
  }

  /** Cuts every open connection, the streams of events included; incusd itself goes on. */
  cutConnections(): void {
    for (const connection of this.#connections) connection.destroy();
  }

  /** Ends the simulation and all that is open in it. */
  close(): void {
    this.kill();
    this.#face.close();
  }

  instance(name: string, project = 'default'): SimInstance | undefined {
    return this.store.projects.get(project)?.instances.get(name);
  }

  /** Names of all instances of a project. */
  names(project = 'default'): string[] {
    return [...(this.store.projects.get(project)?.instances.keys() ?? [])];
  }

  /** Every instance ever made, also those deleted since, with what its runner did. */
  get lives(): readonly Life[] {
    return this.daemon.lives;
  }

  /** How often the job's command was really run in instances of that name, also in those deleted since. */
  runs(name: string): number {
    return this.lives.filter((life) => life.name === name).reduce((sum, { counts }) => sum + counts.runs, 0);
  }

  #accept(connection: Duplex): void {
    this.#connections.add(connection);
    connection.once('close', () => this.#connections.delete(connection));
    connection.on('error', () => connection.destroy());
    this.#face.accept(connection);
  }
}
