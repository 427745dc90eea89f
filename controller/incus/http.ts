import { Agent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import PQueue from 'p-queue';
import WebSocket from 'ws';
import { IncusError } from './errors.ts';

/** Opens a stream to Incus's unix socket: locally, or through SSH. */
export type Dial = () => Promise<Duplex>;

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  /** Path and query below the server's root: `/1.0/instances?recursion=1`. */
  path: string;
  /** Sent as JSON, or as it is where it is bytes. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** The most bytes of body to take; one more is an error. */
  maxBytes: number;
  /** Silence after which the request is given up, in milliseconds. */
  timeout: number;
}

export interface HttpReply {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

/**
 * incusd closes a stream over which nothing was asked for thirty seconds (measured on 6.0.4). One that it may be about to
 * close is not used any more, as nobody could tell whether a request on it was still taken. In milliseconds.
 */
export const longestIdle = 20_000;

/** HTTP and WebSocket over streams that `dial` opens, kept alive between requests. */
export class HttpPipe {
  readonly #agent: StreamAgent;
  readonly #dial: Dial;
  /** Node's agent counts a stream only once it is open: a burst of requests would open one for each of them. */
  readonly #turns: PQueue;

  /** @param maxStreams the most streams open at once for requests. */
  constructor(dial: Dial, maxStreams: number) {
    this.#dial = dial;
    this.#agent = new StreamAgent(dial, maxStreams);
    this.#turns = new PQueue({ concurrency: maxStreams });
  }

  /** One request. Rejects with an {@link IncusError} of kind Unknown when no whole answer came. */
  async request(options: HttpRequest): Promise<HttpReply> {
    const reply = await this.open(options);
    try {
      return {
        status: reply.statusCode ?? 0,
        headers: reply.headers,
        body: await readAll(reply, options.maxBytes),
      };
    } catch (error) {
      reply.destroy();
      throw error;
    }
  }

  /** One request whose answer is read as a stream. The caller reads or destroys it. */
  open(options: HttpRequest): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      this.#turns.add(() => this.#send(options, resolve, reject)).catch(reject);
    });
  }

  /** Resolves when the request's stream is free for another. */
  #send(
    options: HttpRequest,
    resolve: (incoming: IncomingMessage) => void,
    reject: (error: Error) => void,
  ): Promise<unknown> {
    const { body: said } = options;
    const body = said === undefined || Buffer.isBuffer(said) ? said : JSON.stringify(said);
    const outgoing: ClientRequest = httpRequest({
      agent: this.#agent,
      method: options.method,
      path: options.path,
      host: 'incus',
      headers: {
        ...(body === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
        ...options.headers,
      },
      ...(options.signal ? { signal: options.signal } : {}),
    });
    const { promise: free, resolve: isFree } = Promise.withResolvers<unknown>();
    outgoing.once('close', isFree);
    const watchdog = setTimeout(() => {
      outgoing.destroy(new IncusError('Unknown', `no answer within ${options.timeout} ms`));
    }, options.timeout);
    outgoing.once('response', (incoming) => {
      incoming.once('close', () => clearTimeout(watchdog));
      incoming.on('data', () => watchdog.refresh());
      incoming.pause();
      resolve(incoming);
    });
    outgoing.once('error', (error) => {
      clearTimeout(watchdog);
      reject(unknownOutcome(error));
    });
    outgoing.end(body);
    return free;
  }

  /** Opens a WebSocket on a stream of its own. */
  async webSocket(path: string, maxMessageBytes: number): Promise<WebSocket> {
    const stream = await this.#dial();
    return new WebSocket(`ws://incus${path}`, {
      createConnection: () => asSocket(stream) as never,
      perMessageDeflate: false,
      maxPayload: maxMessageBytes,
      handshakeTimeout: 15_000,
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

class StreamAgent extends Agent {
  readonly #dialStream: Dial;
  /** Streams that wait for a request, each until its time is up. */
  readonly #idle = new WeakMap<Duplex, NodeJS.Timeout>();

  constructor(dial: Dial, maxStreams: number) {
    super({ keepAlive: true, maxSockets: maxStreams, maxFreeSockets: maxStreams, scheduling: 'lifo' });
    this.#dialStream = dial;
  }

  override createConnection(
    _options: unknown,
    done: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    this.#dialStream().then(
      (stream) => done(null, asSocket(stream)),
      (error: unknown) => done(error as Error, undefined as never),
    );
  }

  override keepSocketAlive(stream: Duplex): boolean {
    this.#idle.set(stream, setTimeout(() => stream.destroy(), longestIdle).unref());
    return true;
  }

  override reuseSocket(stream: Duplex, request: ClientRequest): void {
    clearTimeout(this.#idle.get(stream));
    super.reuseSocket(stream, request);
  }
}

/** Gives a plain stream, such as an SSH channel, the methods that Node's HTTP client calls on sockets. */
function asSocket(stream: Duplex): Duplex {
  const self = () => stream;
  for (const method of ['setNoDelay', 'setTimeout', 'setKeepAlive', 'ref', 'unref']) {
    if (!(method in stream)) Object.assign(stream, { [method]: self });
  }
  return stream;
}

async function readAll(stream: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBytes) throw new IncusError('TooLarge', `the answer is larger than ${maxBytes} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw unknownOutcome(error);
  }
  return Buffer.concat(chunks);
}

/** The error for an answer that did not come, or not whole. */
function unknownOutcome(error: unknown): Error {
  if (error instanceof IncusError || (error instanceof Error && error.name === 'AbortError')) return error;
  return new IncusError('Unknown', error instanceof Error ? error.message : String(error), 0, {
    cause: error,
  });
}
