import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import { type Duplex, duplexPair, PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { HttpPipe, type GuestRead, type HttpRequest } from '../../../controller/incus/http.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const clock = new ManualClock();
const pipes: HttpPipe[] = [];
afterEach(() => {
  for (const pipe of pipes.splice(0)) pipe.close();
  vi.useRealTimers();
});

/** A pipe to a server that does with each new stream what the test says. */
function pipeTo(accept: (stream: Duplex) => void, maxStreams = 4) {
  const streams: Duplex[] = [];
  let open = 0;
  let mostOpen = 0;
  const pipe = new HttpPipe(
    () => {
      const [near, far] = duplexPair();
      streams.push(near);
      open += 1;
      mostOpen = Math.max(mostOpen, open);
      near.once('close', () => {
        open -= 1;
        far.destroy();
      });
      far.once('close', () => near.destroy());
      far.on('error', () => undefined);
      accept(far);
      return Promise.resolve(near);
    },
    { requests: maxStreams, reads: maxStreams, clock, namespaceOf: (instance) => instance.slice(0, 1) },
  );
  pipes.push(pipe);
  const ask = (part: Partial<HttpRequest> = {}) =>
    pipe.request({ method: 'GET', path: '/1.0', maxBytes: 100, timeout: 10_000, ...part });
  return { pipe, ask, streams, mostOpen: () => mostOpen };
}
/** The same, to an HTTP server. */
function serving(answer: RequestListener, maxStreams?: number) {
  const server = createServer({ keepAliveTimeout: 0 }, answer);
  return pipeTo((stream) => server.emit('connection', stream), maxStreams);
}
/** The same, to something that says these bytes once it is asked. */
const saying = (bytes: string, after: (stream: Duplex) => void = () => undefined) =>
  pipeTo((stream) =>
    stream.once('data', () => {
      stream.write(bytes);
      after(stream);
    }),
  );

describe('a request over a stream', () => {
  it('carries path and body, and brings status, headers and body', async () => {
    const { ask } = serving((request, response) => {
      void text(request).then((body) => {
        response.writeHead(202, { 'x-incus-type': 'file' });
        response.end(`${request.method} ${request.url} ${request.headers['content-type']} ${body}`);
      });
    });
    const reply = await ask({ method: 'POST', path: '/1.0/instances?project=p', body: { name: 'é' } });
    expect(reply).toMatchObject({ status: 202, headers: { 'x-incus-type': 'file' } });
    expect(reply.body.toString()).toBe('POST /1.0/instances?project=p application/json {"name":"é"}');
  });

  it('uses a stream again', async () => {
    const { ask, streams } = serving((_request, response) => response.end('{}'));
    for (let count = 0; count < 3; count += 1) await ask();
    expect(streams).toHaveLength(1);
  });

  it('does not use one that the server may be about to close, as nothing was asked on it for so long', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const { ask, streams } = serving((_request, response) => response.end('{}'));
    const after = async (milliseconds: number) => {
      vi.advanceTimersByTime(milliseconds);
      await ask();
      return streams.length;
    };
    expect([await after(0), await after(19_999), await after(19_999), await after(20_000)]).toEqual([
      1, 1, 1, 2,
    ]);
    expect(streams[0]?.destroyed).toBe(true);
  });

  it('waits for its turn where no more streams may be open at once, and gets it whatever became of the others', async () => {
    const { ask, mostOpen } = serving((request, response) => {
      setImmediate(() => {
        if (request.url === '/broken') response.destroy();
        else response.end('x'.repeat(request.url === '/large' ? 101 : 1));
      });
    }, 2);
    const paths = Array.from({ length: 20 }, (_, index) => ['/', '/broken', '/large'][index % 3]!);
    const replies = await Promise.allSettled(paths.map((path) => ask({ path })));
    expect(mostOpen()).toBe(2);
    expect(replies.map(({ status }) => status)).toEqual(
      paths.map((path) => (path === '/' ? 'fulfilled' : 'rejected')),
    );
  });

  it.each(['content-length', 'transfer-encoding'])(
    'takes a body of the limit, and not one byte more (%s)',
    async (by) => {
      const { ask, streams } = serving((request, response) => {
        const body = 'x'.repeat(Number(request.url?.slice(1)));
        response.writeHead(200, by === 'content-length' ? { [by]: body.length } : { [by]: 'chunked' });
        response.end(body);
      });
      expect((await ask({ path: '/100' })).body).toHaveLength(100);
      await expect(ask({ path: '/101' })).rejects.toMatchObject({ name: 'IncusError', kind: 'TooLarge' });
      // What is left of that answer is not taken for the next one.
      expect(streams[0]?.destroyed).toBe(true);
      expect((await ask({ path: '/7' })).body).toHaveLength(7);
    },
  );

  it('stops reading an answer without end', async () => {
    const { ask, streams } = serving((_request, response) => {
      const more = () => {
        while (response.write('x'.repeat(1000)));
        response.once('drain', more);
      };
      more();
    });
    await expect(ask()).rejects.toMatchObject({ kind: 'TooLarge' });
    expect(streams[0]?.destroyed).toBe(true);
  });
});

describe('an answer that does not come, or not whole, is Unknown', () => {
  it.each([
    ['a server that hangs up', pipeTo((stream) => stream.once('data', () => stream.destroy()))],
    [
      'one that hangs up in the middle',
      saying('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf', (s) => s.end()),
    ],
    ['one that speaks something else', saying('SSH-2.0-OpenSSH_9.2\r\n')],
    ['headers that are too large', saying(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`)],
    ['headers without end', saying('HTTP/1.1 200 OK\r\n' + `x: ${'y'.repeat(1000)}\r\n`.repeat(100))],
  ])('%s', async (_what, { ask, streams }) => {
    await expect(ask()).rejects.toMatchObject({ name: 'IncusError', kind: 'Unknown', status: 0 });
    expect(streams.every((stream) => stream.destroyed)).toBe(true);
  });

  it('a stream that cannot be opened', async () => {
    const pipe = new HttpPipe(() => Promise.reject(new Error('no such socket')), { requests: 1, reads: 1 });
    const asked = pipe.request({ method: 'GET', path: '/', maxBytes: 1, timeout: 10_000 });
    await expect(asked).rejects.toMatchObject({ kind: 'Unknown', message: 'no such socket' });
  });

  it('a server that says nothing at all, for as long as the timeout', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const asked = Promise.withResolvers<undefined>();
    const { ask, streams } = pipeTo((stream) => stream.once('data', () => asked.resolve(undefined)));
    const reply = ask({ timeout: 1000 });
    let over = false;
    const failed = expect(reply.finally(() => (over = true))).rejects.toMatchObject({ kind: 'Unknown' });
    await asked.promise;
    vi.advanceTimersByTime(999);
    expect(over).toBe(false);
    vi.advanceTimersByTime(1);
    await failed;
    expect(streams[0]?.destroyed).toBe(true);
  });

  it('one that stalls in its answer: each piece has the whole timeout anew', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    let server: Duplex | undefined;
    const { pipe } = saying('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n', (stream) => (server = stream));
    const reply = await pipe.open({ method: 'GET', path: '/', maxBytes: 0, timeout: 1000 });
    const pieces = (reply as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
    for (const piece of ['one', 'two']) {
      vi.advanceTimersByTime(999);
      server?.write(piece);
      expect(((await pieces.next()).value as Buffer).toString()).toBe(piece);
    }
    vi.advanceTimersByTime(999);
    expect(reply.destroyed).toBe(false);
    const next = pieces.next();
    vi.advanceTimersByTime(1);
    await expect(next).rejects.toThrow();
    expect(reply.complete).toBe(false);
  });
});

describe('a request that the caller gives up', () => {
  it('ends at once, by the name of what happened', async () => {
    const stop = new AbortController();
    const { ask } = pipeTo((stream) => stream.once('data', () => stop.abort()));
    await expect(ask({ signal: stop.signal })).rejects.toMatchObject({ name: 'AbortError' });
  });
});

describe('an answer that is in a guest’s hands', () => {
  const guest = (instance = 'a1'): GuestRead => ({
    instance,
    budget: { longestMs: 60_000, graceMs: 10_000, leastBytesPerSecond: 1_000 },
  });
  const silent = () => serving(() => undefined, 2);
  const asked = Promise.withResolvers<undefined>();

  it('has the grace to begin', async () => {
    const { ask, streams } = pipeTo((stream) => stream.once('data', () => asked.resolve(undefined)));
    const reply = ask({ guest: guest() });
    const failed = expect(reply).rejects.toMatchObject({ name: 'IncusError', kind: 'TooSlow' });
    await asked.promise;
    clock.advance(9_999);
    expect(streams[0]?.destroyed).toBe(false);
    clock.advance(1);
    await failed;
    expect(streams[0]?.destroyed).toBe(true);
  });

  it.each([
    ['too few bytes, however steadily they come', 5, 999, 2],
    ['enough bytes, but without end', 5, 5_000, 11],
  ])('is over after %s', async (_what, seconds, bytes, pieces) => {
    let server: Duplex | undefined;
    const head = 'HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n';
    const { pipe } = saying(head, (stream) => (server = stream));
    const reply = await pipe.open({
      method: 'GET',
      path: '/',
      maxBytes: 0,
      timeout: 60_000,
      guest: guest(),
    });
    let taken = 0;
    const read = (async () => {
      for await (const chunk of reply as AsyncIterable<Buffer>) taken += chunk.length;
    })();
    const failed = expect(read).rejects.toMatchObject({ name: 'IncusError', kind: 'TooSlow' });
    for (let piece = 1; piece <= pieces; piece += 1) {
      clock.advance(seconds * 1_000);
      expect(reply.destroyed).toBe(false);
      server?.write('x'.repeat(bytes));
      await expect.poll(() => taken).toBe(piece * bytes);
    }
    clock.advance(seconds * 1_000);
    await failed;
  });

  it.each([
    [
      'by one who takes each piece when they like',
      async function* (reply: IncomingMessage) {
        yield* reply as AsyncIterable<Buffer>;
      },
    ],
    ['through a pipe that is held up', (reply: IncomingMessage) => reply.pipe(new PassThrough())],
  ])('is whole, however slowly it is read: %s', async (_how, readBy) => {
    let server: Duplex | undefined;
    const head = 'HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n';
    const { pipe } = saying(head, (stream) => (server = stream));
    const path = '/slowly';
    const reply = await pipe.open({ method: 'GET', path, maxBytes: 0, timeout: 60_000, guest: guest() });
    for (let piece = 0; piece < 4; piece += 1) server?.write(Buffer.alloc(100_000));
    let size = 0;
    for await (const chunk of readBy(reply) as AsyncIterable<Buffer>) {
      size += chunk.length;
      // What the guest has sent meanwhile waits by now.
      await vi.waitFor(() => expect(reply.complete || reply.readableLength > 0).toBe(true));
      clock.advance(120_000);
    }
    expect(size).toBe(400_000);
  });

  it('is over when the guest sends no more after a slow reader has taken what came', async () => {
    let server: Duplex | undefined;
    const head = 'HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n';
    const { pipe } = saying(head, (stream) => (server = stream));
    const reply = await pipe.open({ method: 'GET', path: '/', maxBytes: 0, timeout: 60_000, guest: guest() });
    server?.write('x');
    await vi.waitFor(() => expect(reply.readableLength).toBe(1));
    clock.advance(3_600_000);
    const pieces = (reply as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
    expect((await pieces.next()).value).toHaveLength(1);
    const next = pieces.next();
    clock.advance(9_999);
    expect(reply.destroyed).toBe(false);
    clock.advance(10);
    await expect(next).rejects.toMatchObject({ kind: 'TooSlow' });
  });

  it('holds up no short one of its namespace where it is long, though there are but two places', async () => {
    const { ask } = serving((request, response) => {
      if (request.url !== '/silent') response.end('{}');
    }, 2);
    const stop = new AbortController();
    const drips = ['a1', 'a2', 'a3'].map((instance) =>
      ask({ path: '/silent', guest: { ...guest(instance), long: true }, signal: stop.signal }),
    );
    expect((await ask({ guest: guest('a4') })).status).toBe(200);
    stop.abort();
    for (const drip of drips) await expect(drip).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('holds up no request, and no guest of another namespace', async () => {
    const { ask } = serving((request, response) => {
      if (request.url !== '/silent') response.end('{}');
    }, 2);
    const stop = new AbortController();
    const drips = ['a1', 'a2', 'a3', 'a4'].map((instance) =>
      ask({ path: '/silent', guest: { ...guest(instance), long: true }, signal: stop.signal }),
    );
    expect((await ask()).status).toBe(200);
    expect((await ask({ guest: guest('b1') })).status).toBe(200);
    stop.abort();
    for (const drip of drips) await expect(drip).rejects.toMatchObject({ name: 'AbortError' });
    expect((await ask({ guest: guest('a5') })).status).toBe(200);
  });

  it('is let go of at once when the caller gives it up, be it under way or waiting', async () => {
    const { ask } = silent();
    const stop = new AbortController();
    const replies = ['a1', 'a2', 'a3'].map((one) => ask({ guest: guest(one), signal: stop.signal }));
    setImmediate(() => stop.abort());
    for (const reply of replies) await expect(reply).rejects.toMatchObject({ name: 'AbortError' });
  });
});
