import { once } from 'node:events';
import { createServer } from 'node:http';
import { duplexPair, type Duplex } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { WebSocketServer, type WebSocket } from 'ws';
import { maxEventBytes, readEvents } from '../../../controller/incus/events.ts';
import { HttpPipe } from '../../../controller/incus/http.ts';
import type { IncusEvent } from '../../../controller/incus/schemas.ts';

const timestamp = '2026-01-01T00:00:00Z';
const lifecycle = (action: string) => ({
  type: 'lifecycle',
  timestamp,
  metadata: { action, source: '/1.0/instances/i', name: 'i', requestor: { username: 'somebody' } },
});
const operation = {
  type: 'operation',
  timestamp,
  metadata: { id: 'o', created_at: timestamp, status: 'Success', status_code: 200, metadata: { return: 3 } },
};

const opened: Duplex[] = [];
afterEach(() => {
  for (const stream of opened.splice(0)) stream.destroy();
});

/** Reads what a server sends until it ends the stream, one way or another. */
async function heard(send: (socket: WebSocket) => void) {
  const server = createServer();
  const sockets = new WebSocketServer({ server });
  sockets.on('connection', send);
  const pipe = new HttpPipe(
    () => {
      const [near, far] = duplexPair();
      opened.push(near, far);
      near.once('close', () => far.destroy());
      far.once('close', () => near.destroy());
      server.emit('connection', far);
      return Promise.resolve(near);
    },
    { requests: 1, reads: 1 },
  );
  const socket = await pipe.webSocket('/1.0/events', maxEventBytes);
  const events: IncusEvent[] = [];
  let garbled = 0;
  const reading = readEvents(
    socket,
    (event) => events.push(event),
    () => (garbled += 1),
  );
  await once(socket, 'open');
  return { reason: await reading, events, garbled };
}
const all = (...messages: (string | Buffer | object)[]) =>
  heard((socket) => {
    for (const message of messages) {
      socket.send(
        typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message),
      );
    }
    socket.close();
  });

describe('the stream of events', () => {
  it('brings lifecycle and operations in their order, with what we know of them', async () => {
    const { events, garbled, reason } = await all(lifecycle('instance-started'), operation);
    expect(events).toMatchObject([
      { type: 'lifecycle', metadata: { action: 'instance-started' } },
      { type: 'operation', metadata: { id: 'o', status_code: 200, metadata: { return: 3 } } },
    ]);
    expect(JSON.stringify(events)).not.toContain('somebody');
    expect([garbled, reason]).toEqual([0, 'closed by the server']);
  });

  it('passes over events of other types without a word', async () => {
    const { events, garbled } = await all({ type: 'logging', metadata: {} }, { type: 7 }, {}, [], 'null');
    expect([events, garbled]).toEqual([[], 0]);
  });

  it('counts what is garbled, and goes on with what comes after it', async () => {
    const { events, garbled } = await all(
      '{"type":"lifecycle",',
      Buffer.from([0xff, 0xfe]),
      { type: 'lifecycle', timestamp },
      { ...operation, metadata: { id: 'o' } },
      lifecycle('instance-stopped'),
    );
    expect([garbled, events.length]).toEqual([4, 1]);
  });

  it('takes an event as large as may be, and ends at one byte more', async () => {
    const sized = (bytes: number) => {
      const empty = JSON.stringify(lifecycle(''));
      return JSON.stringify(lifecycle('x'.repeat(bytes - empty.length)));
    };
    expect((await all(sized(maxEventBytes))).events).toHaveLength(1);
    const { events, reason } = await heard((socket) => {
      socket.on('error', () => undefined);
      socket.send(sized(maxEventBytes + 1));
      socket.send(JSON.stringify(lifecycle('instance-stopped')));
    });
    expect(events).toEqual([]);
    expect(reason).toMatch(/max payload size/i);
  });

  it('ends when the connection is cut', async () => {
    const { events, reason } = await heard((socket) => {
      socket.send(JSON.stringify(lifecycle('instance-stopped')), () => socket.terminate());
    });
    expect([events.length, reason]).toEqual([1, 'closed by the server']);
  });
});
