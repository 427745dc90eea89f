import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer, type Server as NetServer } from 'node:net';
import { type Duplex, duplexPair, Readable } from 'node:stream';
import { WebSocketServer } from 'ws';
import { type Clock, systemClock } from '../../../controller/clock.ts';
import { Daemon, type Timings } from './daemon.ts';
import { Faults, type RequestFault } from './faults.ts';
import type { GuestScript } from './guest-script.ts';
import { HostFiles } from './host-files.ts';
import type { SimInstance } from './instance.ts';
import type { SimReply, SimRequest } from './reply.ts';
import { RequestLog } from './request-log.ts';
import { answer } from './router.ts';
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
  readonly #clock: Clock;
  readonly #http: Server;
  readonly #sockets = new WebSocketServer({ noServer: true });
  readonly #connections = new Set<Duplex>();
  #net: NetServer | undefined;
  #path: string | undefined;
  #down = false;

  constructor(options: IncusSimOptions = {}) {
    const { guest = {}, virtualMachines = true, clock = systemClock } = options;
    this.#clock = clock;
    this.daemon = new Daemon({
      clock,
      store: this.store,
      host: this.host,
      virtualMachines,
      timings: { create: 2, start: 2, stop: 2, delete: 2, ...options.timings },
      guest: typeof guest === 'function' ? guest : () => guest,
    });
    this.#http = createHttpServer((request, response) => void this.#serve(request, response));
    this.#http.on(
      'upgrade',
      (request, socket: Duplex, head: Buffer) => void this.#upgrade(request, socket, head),
    );
    // A connection may be idle for as long as it likes.
    this.#http.keepAliveTimeout = 0;
    this.#http.requestTimeout = 0;
  }

  /** Open connections to incusd. */
  get connections(): number {
    return this.#connections.size;
  }

  /** True while incusd is killed. */
  get down(): boolean {
    return this.#down;
  }

  /** Opens a connection, as if by its unix socket. It fails while incusd is down. */
  connect(): Duplex {
    const [near, far] = duplexPair();
    if (this.#down) {
      const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
      queueMicrotask(() => near.destroy(refused));
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
    this.#net = server;
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  }

  /** Kills incusd: connections die, operations are forgotten, instances stay. */
  kill(): void {
    this.#down = true;
    this.daemon.kill();
    this.cutConnections();
    this.#net?.close();
    this.#net = undefined;
  }

  /** Starts incusd again after {@link kill}. */
  async restart(): Promise<void> {
    this.#down = false;
    if (this.#path !== undefined) await this.listen(this.#path);
  }

  /** Ends the simulation and everything open in it. */
  close(): void {
    this.kill();
    this.#sockets.close();
    this.#http.close();
  }

  /** Cuts every open connection; incusd itself goes on. */
  cutConnections(): void {
    for (const connection of this.#connections) connection.destroy();
  }

  instance(name: string, project = 'default'): SimInstance | undefined {
    return this.store.projects.get(project)?.instances.get(name);
  }

  /** Names of all instances of a project. */
  names(project = 'default'): string[] {
    return [...(this.store.projects.get(project)?.instances.keys() ?? [])];
  }

  /** How often the job's command was really run in instances of that name, also in deleted ones. */
  runs(name: string): number {
    return this.daemon.everMade
      .filter((instance) => instance.name === name)
      .reduce((sum, { guest }) => sum + guest.runner.runs, 0);
  }

  #accept(connection: Duplex): void {
    this.#connections.add(connection);
    connection.once('close', () => this.#connections.delete(connection));
    connection.on('error', () => connection.destroy());
    this.#http.emit('connection', connection);
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const request = await read(incoming);
    this.#log(request);
    const fault = this.faults.take(request);
    if (await this.#before(fault, incoming.socket, response)) return;
    const reply = await answer(this.daemon, request);
    if (this.#after(fault, incoming.socket, response)) return;
    send(reply, response, request.method);
  }

  async #upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const request = requestOf(incoming, Buffer.alloc(0));
    this.#log(request);
    const fault = this.faults.take(request);
    if (await this.#before(fault, socket)) return;
    const refuse = (status: string, error: string) => {
      const code = Number(status.split(' ')[0]);
      const body = JSON.stringify({
        type: 'error',
        status: '',
        status_code: 0,
        operation: '',
        error_code: code,
        error,
        metadata: null,
      });
      socket.end(
        `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
      );
    };
    const { query } = request;
    const project = query.get('project') ?? 'default';
    const all = query.get('all-projects') === 'true';
    const types = (query.get('type') ?? 'lifecycle,operation,logging').split(',');
    const bogus = types.find((type) => !['lifecycle', 'operation', 'logging'].includes(type));
    if (request.path !== '/1.0/events') {
      refuse('404 Not Found', 'not found');
      return;
    }
    if (all && query.has('project')) {
      refuse('400 Bad Request', 'Cannot specify a project when requesting all projects');
      return;
    }
    if (!this.store.projects.has(project)) {
      refuse('404 Not Found', 'Project not found');
      return;
    }
    if (bogus !== undefined) {
      refuse('400 Bad Request', `"${bogus}" isn't a supported event type`);
      return;
    }
    this.#sockets.handleUpgrade(incoming, socket, head, (webSocket) => {
      const leave = this.daemon.hub.join({
        types: new Set(types),
        project: all ? undefined : project,
        send: (text) => webSocket.send(text),
        close: () => webSocket.terminate(),
      });
      webSocket.on('close', leave);
      webSocket.on('error', leave);
      if (fault?.kind === 'drop') webSocket.terminate();
    });
  }

  #log({ method, path, query, body }: SimRequest): void {
    this.requests.entries.push({ method, path, query: query.toString(), body: body.toString() });
  }

  /** Applies what a fault does before the request takes effect. True: there is nothing more to do. */
  async #before(
    fault: RequestFault | undefined,
    socket: Duplex,
    response?: ServerResponse,
  ): Promise<boolean> {
    switch (fault?.kind) {
      case 'delay':
        await new Promise<void>((resolve) => void this.#clock.after(fault.milliseconds, resolve));
        return false;
      case 'hang':
        return true;
      case 'answer':
        if (response) response.writeHead(fault.status).end(fault.body);
        else socket.end(`HTTP/1.1 ${fault.status} Fault\r\ncontent-length: 0\r\n\r\n`);
        return true;
      case 'drop':
        if (fault.when === 'before') socket.destroy();
        return fault.when === 'before';
      case 'kill':
        if (fault.when === 'before') this.kill();
        return fault.when === 'before';
      case 'garble':
      case 'flood':
      case undefined:
        return false;
    }
  }

  #after(fault: RequestFault | undefined, socket: Duplex, response: ServerResponse): boolean {
    switch (fault?.kind) {
      case 'drop':
        socket.destroy();
        return true;
      case 'kill':
        // What the request began gets its first step first, as the real thing had when it was killed.
        queueMicrotask(() => this.kill());
        return true;
      case 'garble':
        response
          .writeHead(200, { 'content-type': 'application/json' })
          .end(fault.body ?? '{"type":"sync","meta');
        return true;
      case 'flood':
        response.writeHead(200, {
          'content-type': 'application/json',
          'content-length': String(fault.bytes),
        });
        flood(fault.bytes).pipe(response);
        return true;
      case 'answer':
      case 'delay':
      case 'hang':
      case undefined:
        return false;
    }
  }
}

async function read(incoming: IncomingMessage): Promise<SimRequest> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  return requestOf(incoming, Buffer.concat(chunks));
}

function requestOf({ method = 'GET', url = '/', headers }: IncomingMessage, body: Buffer): SimRequest {
  const at = url.indexOf('?');
  const path = at < 0 ? url : url.slice(0, at);
  return { method, path, query: new URLSearchParams(at < 0 ? '' : url.slice(at + 1)), headers, body };
}

function send({ status, headers, body }: SimReply, response: ServerResponse, method: string): void {
  if (body === 'never' || response.destroyed) return;
  response.writeHead(status, headers);
  if (body instanceof Readable) body.on('error', () => undefined).pipe(response);
  else response.end(method === 'HEAD' ? undefined : body);
  response.on('close', () => body instanceof Readable && body.destroy());
}

function flood(bytes: number): Readable {
  let left = bytes;
  return new Readable({
    read() {
      const now = Math.min(left, 65536);
      left -= now;
      this.push(now === 0 ? null : Buffer.alloc(now, 0x20));
    },
  });
}
