import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Duplex, Readable } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Clock } from '../../../controller/clock.ts';
import type { Daemon } from './daemon.ts';
import type { Faults, RequestFault } from './faults.ts';
import { failure, type SimReply, type SimRequest } from './reply.ts';
import type { RequestLog } from './request-log.ts';
import { answer } from './router.ts';

/** What the HTTP side needs of the rest. */
export interface FaceParts {
  clock: Clock;
  daemon: Daemon;
  faults: Faults;
  requests: RequestLog;
  /** Kills incusd. */
  kill: () => void;
}

const eventTypes = ['lifecycle', 'operation', 'logging'];

/** Speaks HTTP and WebSocket on any byte stream, and lets faults happen on the way in and out. */
export class HttpFace {
  readonly #parts: FaceParts;
  readonly #http: Server;
  readonly #webSockets = new WebSocketServer({ noServer: true });

  constructor(parts: FaceParts) {
    this.#parts = parts;
    this.#http = createServer((request, response) => void this.#serve(request, response));
    this.#http.on(
      'upgrade',
      (request, socket: Duplex, head: Buffer) => void this.#upgrade(request, socket, head),
    );
    // incusd closes one that was idle for 30 s; here a test says when.
    this.#http.keepAliveTimeout = 0;
    this.#http.requestTimeout = 0;
    this.#http.headersTimeout = 0;
  }

  accept(connection: Duplex): void {
    this.#http.emit('connection', connection);
  }

  close(): void {
    this.#webSockets.close();
    this.#http.close();
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const request = await read(incoming).catch(() => undefined);
    if (!request) return;
    const fault = this.#arrived(request);
    if (await this.#before(fault, incoming.socket, (reply) => send(reply, response, request.method))) return;
    const reply = await answer(this.#parts.daemon, request);
    if (this.#after(fault, incoming.socket, (other) => send(other, response, request.method))) return;
    send(reply, response, request.method);
  }

  async #upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const request = requestOf(incoming, Buffer.alloc(0));
    const fault = this.#arrived(request);
    if (await this.#before(fault, socket, (reply) => refuse(reply, socket))) return;
    const accepted = this.#stream(request);
    if ('status' in accepted) {
      refuse(accepted, socket);
      return;
    }
    this.#webSockets.handleUpgrade(incoming, socket, head, (webSocket) => {
      accepted.begin(webSocket);
      this.#after(fault, socket, () => webSocket.send('{"type":"oper'));
    });
  }

  /** What a WebSocket is for, or why it is refused. */
  #stream({ path, query }: SimRequest): SimReply | { begin: (webSocket: WebSocket) => void } {
    const { daemon } = this.#parts;
    const exec = /^\/1\.0\/operations\/([^/]+)\/websocket$/.exec(path);
    if (exec) {
      const attached = daemon.operations.find(exec[1] ?? '')?.attached;
      if (!attached) return failure(404, 'Operation not found');
      const name = attached.named(query.get('secret') ?? '');
      if (name === undefined) return failure(403, 'Forbidden');
      return { begin: (webSocket) => attached.connected(name, webSocket) };
    }
    if (path !== '/1.0/events') return failure(404, 'not found');
    const types = query.get('type')?.split(',') ?? eventTypes;
    const all = query.get('all-projects') === 'true';
    const project = query.get('project') ?? 'default';
    if (all && query.has('project'))
      return failure(400, 'Cannot specify a project when requesting all projects');
    if (!daemon.parts.store.projects.has(project)) return failure(404, 'Project not found');
    const bogus = types.find((type) => !eventTypes.includes(type));
    if (bogus !== undefined) return failure(400, `"${bogus}" isn't a supported event type`);
    return {
      begin: (webSocket) => {
        const leave = daemon.hub.join({
          types: new Set(types),
          project: all ? undefined : project,
          send: (text) => webSocket.send(text),
          close: () => webSocket.terminate(),
        });
        webSocket.on('close', leave);
        webSocket.on('error', leave);
      },
    };
  }

  #arrived(request: SimRequest): RequestFault | undefined {
    const { method, path, query, body } = request;
    this.#parts.requests.add({ method, path, query: query.toString(), body: body.toString() });
    return this.#parts.faults.take(request);
  }

  /** Lets a fault happen before the request takes effect. True: it never does. */
  async #before(
    fault: RequestFault | undefined,
    socket: Duplex,
    reply: (reply: SimReply) => void,
  ): Promise<boolean> {
    switch (fault?.kind) {
      case 'delay':
        await new Promise<void>((resolve) => void this.#parts.clock.after(fault.milliseconds, resolve));
        return false;
      case 'hang':
        return true;
      case 'answer':
        reply({ status: fault.status, headers: {}, body: Buffer.from(fault.body) });
        return true;
      case 'drop':
        if (fault.when === 'before') socket.destroy();
        return fault.when === 'before';
      case 'kill':
        if (fault.when === 'before') this.#parts.kill();
        return fault.when === 'before';
      case 'garble':
      case 'flood':
      case undefined:
        return false;
    }
  }

  /** Lets a fault happen to the answer. True: it is not sent. */
  #after(fault: RequestFault | undefined, socket: Duplex, reply: (reply: SimReply) => void): boolean {
    const headers = { 'content-type': 'application/json' };
    switch (fault?.kind) {
      case 'drop':
        socket.destroy();
        return true;
      case 'kill':
        // What the request began gets its first step first, as the real thing had when it was killed.
        queueMicrotask(() => this.#parts.kill());
        return true;
      case 'garble':
        reply({ status: 200, headers, body: Buffer.from(fault.body ?? '{"type":"sync","meta') });
        return true;
      case 'flood':
        reply({ status: 200, headers, body: flood(fault.bytes) });
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
  const { pathname, searchParams } = new URL(url, 'http://incus');
  return { method, path: pathname, query: searchParams, headers, body };
}

function send({ status, headers, body }: SimReply, response: ServerResponse, method: string): void {
  if (body === 'never' || response.destroyed) return;
  response.writeHead(status, headers);
  if (body instanceof Readable) {
    response.on('close', () => body.destroy());
    body.pipe(response);
  } else response.end(method === 'HEAD' ? undefined : body);
}

function refuse({ status, body }: SimReply, socket: Duplex): void {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.alloc(0);
  const headers = `content-type: application/json\r\ncontent-length: ${bytes.length}\r\nconnection: close`;
  socket.end(Buffer.concat([Buffer.from(`HTTP/1.1 ${status} Refused\r\n${headers}\r\n\r\n`), bytes]));
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
