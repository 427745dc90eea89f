import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { KubeConfig } from '@kubernetes/client-node';
import { FakeApiStore, type FakeObject, StatusError } from './fake-api-store.ts';

/** A request as a test sees it, and may answer it in place of the server. */
export interface SeenRequest {
  method: string;
  path: string;
  query: URLSearchParams;
  watch: boolean;
  contentType: string | undefined;
  body: unknown;
}

/** Returns true when it has taken the answer over, and `lose` to have the request done but its answer lost. */
export type Fault = (request: SeenRequest, response: ServerResponse) => boolean | 'lose';

/**
 * A Kubernetes API server in this process, over real TCP, which stores objects, serves paged lists and watches with
 * bookmarks, and misbehaves on demand through {@link FakeApiServer.fault}.
 */
export class FakeApiServer {
  readonly store = new FakeApiStore();
  /** Every request so far. */
  readonly requests: SeenRequest[] = [];
  /** Connections that are open now. */
  readonly sockets = new Set<Socket>();
  /** How many connections were ever made. */
  connections = 0;
  /** Decides, before the server does, what becomes of a request. */
  fault: Fault = () => false;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => void this.#serve(request, response));
    this.#server.keepAliveTimeout = 60_000;
    this.#server.on('connection', (socket) => {
      this.connections++;
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
  }

  static async start(): Promise<FakeApiServer> {
    const fake = new FakeApiServer();
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve));
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** A kubeconfig for this server, with a token of which no trace may show up anywhere. */
  kubeConfig(token = 'very-secret-token'): KubeConfig {
    const config = new KubeConfig();
    const cluster = { name: 'fake', server: this.url, skipTLSVerify: true };
    config.loadFromClusterAndUser(cluster, { name: 'fake', token });
    return config;
  }

  /** The requests that asked for a list, or for a watch. */
  count(kind: 'list' | 'watch'): number {
    return this.requests.filter(({ method, watch }) => method === 'GET' && watch === (kind === 'watch'))
      .length;
  }

  /** Breaks every open connection, as a crash of the server does. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.#server.close();
    this.cut();
    await new Promise((resolve) => this.#server.once('close', resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    } catch {
      return; // The client went away.
    }
    const text = Buffer.concat(chunks).toString();
    const seen: SeenRequest = {
      method: request.method ?? 'GET',
      path: decodeURIComponent(url.pathname),
      query: url.searchParams,
      watch: url.searchParams.get('watch') === 'true',
      contentType: request.headers['content-type'],
      body: text === '' ? undefined : JSON.parse(text),
    };
    this.requests.push(seen);
    const fault = this.fault(seen, response);
    if (fault === true) return;
    try {
      if (fault === 'lose') {
        this.#answer(seen);
        response.destroy();
        return;
      }
      if (seen.watch) this.#watch(seen, response);
      else answer(response, seen.method === 'POST' ? 201 : 200, this.#answer(seen));
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      answer(response, error.code, error.body);
    }
  }

  #answer(request: SeenRequest): object {
    const target = parsePath(request.path);
    const { store } = this;
    const body = request.body as FakeObject;
    if (target.name === undefined) {
      if (request.method === 'POST')
        return store.create(target.collection, {
          ...body,
          metadata: { ...body.metadata, ...namespaceOf(target) },
        });
      const limit = Number(request.query.get('limit') ?? 0);
      return store.list(
        target.collection,
        target.namespace,
        limit,
        request.query.get('continue') ?? undefined,
      );
    }
    const ref = { ...namespaceOf(target), name: target.name };
    switch (request.method) {
      case 'GET':
        return store.get(target.collection, ref);
      case 'PUT':
        return store.replace(target.collection, ref, body, target.subresource);
      case 'PATCH':
        return store.patch(target.collection, ref, body, target.subresource, request.contentType ?? '');
      case 'DELETE': {
        const { preconditions } = request.body as {
          preconditions?: { uid?: string; resourceVersion?: string };
        };
        return store.delete(target.collection, ref, preconditions);
      }
      default:
        throw new StatusError(405, 'MethodNotAllowed', `no ${request.method} here`);
    }
  }

  #watch(request: SeenRequest, response: ServerResponse): void {
    const { collection, namespace } = parsePath(request.path);
    const from = Number(request.query.get('resourceVersion') ?? 0);
    const timeoutSeconds = Number(request.query.get('timeoutSeconds') ?? 300);
    const stop = this.store.watch(collection, namespace, from, (event) => {
      response.write(`${JSON.stringify(event)}\n`);
    });
    response.flushHeaders();
    const timer = setTimeout(() => response.end(), timeoutSeconds * 1000);
    response.on('close', () => {
      clearTimeout(timer);
      stop();
    });
  }
}

/** Answers with JSON; a refusal's headers may be added, such as Retry-After. */
export function answer(
  response: ServerResponse,
  code: number,
  body: object,
  headers: Record<string, string> = {},
): true {
  response.writeHead(code, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
  return true;
}

/** Answers with a `metav1.Status` failure. */
export function refuse(response: ServerResponse, code: number, reason: string, retryAfter?: number): true {
  const headers: Record<string, string> =
    retryAfter === undefined ? {} : { 'Retry-After': String(retryAfter) };
  return answer(response, code, new StatusError(code, reason, `refused with ${reason}`).body, headers);
}

interface Target {
  /** `group/version/plural`, or `version/plural` of the core group. */
  collection: string;
  namespace?: string;
  name?: string;
  subresource?: string;
}

function parsePath(path: string): Target {
  const parts = path.split('/').slice(1);
  const root = parts[0] === 'api' ? parts.splice(0, 2).slice(1) : parts.splice(0, 3).slice(1);
  const namespaced = parts[0] === 'namespaces' && parts.length > 2;
  const namespace = namespaced ? parts.splice(0, 2)[1] : undefined;
  const [plural, name, subresource] = parts;
  return {
    collection: [...root, plural].join('/'),
    ...(namespace !== undefined && { namespace }),
    ...(name !== undefined && { name }),
    ...(subresource !== undefined && { subresource }),
  };
}

const namespaceOf = ({ namespace }: Target) => (namespace === undefined ? {} : { namespace });
