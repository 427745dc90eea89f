import { request as httpRequest } from 'node:http';
import type { Duplex } from 'node:stream';
import WebSocket from 'ws';
import type { Answer, ByteStream, Endpoint, EventReader, SeenEvent } from './incus-scenarios/scenario.ts';

/** How long a scenario waits for an event that should come, in milliseconds. */
const patience = 10_000;

let counter = 0;

/** The parts of an {@link Endpoint} that need no more than a way to open a connection. */
export function speakTo(connect: () => Duplex): Pick<Endpoint, 'request' | 'events' | 'stream' | 'unique'> {
  return {
    request: (method, path, options = {}) => send(connect, method, path, options),
    events: (query) => follow(connect, query),
    stream: (path) => attach(connect, path),
    unique: (prefix) => `${prefix}-${process.pid.toString(36)}-${(counter += 1).toString(36)}`,
  };
}

function send(
  connect: () => Duplex,
  method: string,
  path: string,
  { body, headers, abortAfter }: NonNullable<Parameters<Endpoint['request']>[2]>,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      {
        method,
        path,
        createConnection: () => connect(),
        headers: { host: 'incus', connection: 'close', ...headers },
        ...(abortAfter === undefined ? {} : { signal: AbortSignal.timeout(abortAfter) }),
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
        incoming.on('error', reject);
        incoming.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text });
        });
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** Opens a WebSocket. It is handed to `listen` before anything can have come. */
function open(connect: () => Duplex, path: string, listen: (socket: WebSocket) => void): Promise<WebSocket> {
  const socket = new WebSocket(`ws://incus${path}`, { createConnection: () => connect() as never });
  listen(socket);
  return new Promise((resolve, reject) => {
    socket.on('open', () => resolve(socket));
    socket.on('error', reject);
    socket.on('unexpected-response', (_request, { statusCode }) => reject(new Error(String(statusCode))));
  });
}

async function attach(connect: () => Duplex, path: string): Promise<ByteStream> {
  let text = '';
  const { promise: closed, resolve } = Promise.withResolvers<undefined>();
  const socket = await open(connect, path, (opening) => {
    opening.on('message', (data: Buffer) => (text += data.toString()));
    opening.on('close', () => resolve(undefined));
  });
  return {
    text: () => text,
    closed,
    send: (data) => socket.send(data),
    terminate: () => socket.terminate(),
  };
}

async function follow(connect: () => Duplex, query: string): Promise<EventReader> {
  const seen: SeenEvent[] = [];
  const waiting = new Set<() => void>();
  const socket = await open(connect, `/1.0/events?${query}`, (opening) =>
    opening.on('message', (data: Buffer) => {
      seen.push(JSON.parse(data.toString()) as SeenEvent);
      for (const look of waiting) look();
    }),
  );
  return {
    seen,
    close: () => socket.close(),
    until: (wanted) =>
      new Promise((resolve, reject) => {
        const stop = () => {
          clearTimeout(timer);
          waiting.delete(look);
        };
        const look = () => {
          const found = seen.find(wanted);
          if (!found) return;
          stop();
          resolve(found);
        };
        const timer = setTimeout(() => {
          stop();
          reject(new Error(`no such event within ${patience} ms; last: ${JSON.stringify(seen.at(-1))}`));
        }, patience);
        waiting.add(look);
        look();
      }),
  };
}
