import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Socket, type AddressInfo } from 'node:net';
import type { Clock } from '../clock.ts';
import { Connections } from '../connections.ts';
import type { Exposition } from './exposition.ts';

export interface TelemetryServerOptions {
  /** Address to listen on, such as `:8080`, `127.0.0.1:0` or `[::1]:8080`. Without a host, all addresses. */
  address: string;
  clock: Clock;
  /** Undefined when the process works, else why it should be restarted. */
  alive: () => string | undefined;
  /** Undefined when the process does its duty, else why it does not yet, or no longer. */
  ready: () => string | undefined;
  /** The metrics, in the format that a request's `Accept` asks for. */
  metrics: (accept: string | undefined) => Promise<Exposition>;
}

export interface TelemetryServer {
  /** The port in use, also when port 0 was asked for. */
  readonly port: number;
  /** Takes no more requests, and resolves once those under way are answered, or cut off after a second. */
  close(): Promise<void>;
}

/** A connection lasts a minute between two requests, as scrapes come. */
const connectionLimits = { most: 100, ofAddress: 50, requestTime: 65_000, reviewTime: 30_000 };

/**
 * Serves `/healthz`, `/readyz` and `/metrics` over plain HTTP.
 *
 * @throws The system's error when the address cannot be used.
 */
export async function serveTelemetry(options: TelemetryServerOptions): Promise<TelemetryServer> {
  const limits = {
    maxHeaderSize: 8192,
    requestTimeout: 10_000,
    headersTimeout: 5000,
    keepAliveTimeout: 60_000,
    connectionsCheckingInterval: 1000,
  };
  const connections = new Connections(options.clock, connectionLimits);
  const server = createServer(limits, (request, response) => {
    const stay = connections.begin(request.socket);
    void respond(options, request, response).finally(() => stay?.end());
  });
  // Who keeps connections open must not keep the kubelet's probes out: it would end the process.
  server.on('connection', (socket) => {
    if (socket instanceof Socket) connections.admit(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(parseAddress(options.address), resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        const impatient = setTimeout(() => server.closeAllConnections(), 1000);
        server.close(() => {
          clearTimeout(impatient);
          resolve();
        });
        server.closeIdleConnections();
      }),
  };
}

async function respond(options: TelemetryServerOptions, request: IncomingMessage, response: ServerResponse) {
  // Nobody has anything to tell us.
  request.resume();
  const path = (request.url ?? '').split('?', 1)[0];
  try {
    if (request.method !== 'GET' && request.method !== 'HEAD')
      send(response, 405, 'only GET\n', { Allow: 'GET, HEAD' });
    else if (path === '/healthz') check(response, options.alive());
    else if (path === '/readyz') check(response, options.ready());
    else if (path === '/metrics') {
      const { contentType, body } = await options.metrics(request.headers.accept);
      send(response, 200, body, { 'Content-Type': contentType, Vary: 'Accept' });
    } else send(response, 404, 'try /healthz, /readyz or /metrics\n');
  } catch {
    send(response, 500, 'failed\n');
  }
}

function check(response: ServerResponse, complaint: string | undefined): void {
  send(response, complaint === undefined ? 200 : 503, `${complaint ?? 'ok'}\n`);
}

function send(
  response: ServerResponse,
  code: number,
  body: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(code, {
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
    'X-Content-Type-Options': 'nosniff',
    ...headers,
  });
  response.end(body);
}

/** @throws TypeError that shows what an address looks like. */
export function parseAddress(address: string): { host?: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  if (!match || port > 65535) throw new TypeError(`"${address}" is no address; try :8080 or 127.0.0.1:8080`);
  const host = match[1] ?? match[2];
  return host ? { host, port } : { port };
}
