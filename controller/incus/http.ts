import { Agent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import PQueue from 'p-queue';
import WebSocket from 'ws';
import { systemClock, type Clock } from '../clock.ts';
import { IncusError } from './errors.ts';
import { FairQueue, sharesOf } from './fair-queue.ts';
import { bytesCame, goesOn, heldUp, readBegun, readEndsAt, type ReadBudget } from './read-budget.ts';

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
  /** Silence after which the request is given up, in milliseconds. Where there is a `guest`, its budget says that. */
  timeout: number;
  /** Set where a guest decides when the answer comes, and how fast. */
  guest?: GuestRead;
}

/** A request whose answer is in a guest's hands. */
export interface GuestRead {
  /** Name of the instance. */
  instance: string;
  budget: ReadBudget;
  /** It may take minutes: it leaves places to what is short. */
  long?: boolean;
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

export interface HttpPipeOptions {
  /** The most streams open at once for requests that Incus itself answers. */
  requests: number;
  /** The most streams open at once, beside those, for requests whose answer is in a guest's hands. */
  reads: number;
  clock?: Clock;
  /** Namespace of the job whose instance this is: those reads are shared among namespaces. */
  namespaceOf?: (instance: string) => string;
}

/**
 * HTTP and WebSocket over streams that `dial` opens, kept alive between requests. Reads of guests have streams of their
 * own, so that no request waits for a guest that answers slowly.
 */
export class HttpPipe {
  readonly #dial: Dial;
  readonly #clock: Clock;
  readonly #namespaceOf: (instance: string) => string;
  readonly #requests: StreamAgent;
  readonly #reads: StreamAgent;
  /** Node's agent counts a stream only once it is open: a burst of requests would open one for each of them. */
  readonly #requestTurns: PQueue;
  readonly #readTurns: FairQueue;

  constructor(dial: Dial, { requests, reads, clock = systemClock, namespaceOf = () => '' }: HttpPipeOptions) {
    this.#dial = dial;
    this.#clock = clock;
    this.#namespaceOf = namespaceOf;
    this.#requests = new StreamAgent(dial, requests);
    this.#reads = new StreamAgent(dial, reads);
    this.#requestTurns = new PQueue({ concurrency: requests });
    this.#readTurns = new FairQueue(sharesOf(reads, reads > 2 ? 1 : 0));
  }

  /**
   * One request. Rejects with an {@link IncusError}: of kind TooSlow when a guest used up its budget, and of kind Unknown
   * when no whole answer came for another reason.
   */
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
      this.#inTurn(options, () => this.#send(options, resolve, reject)).catch((error: unknown) => {
        reject(unknownOutcome(error));
      });
    });
  }

  #inTurn({ guest, signal }: HttpRequest, send: () => Promise<unknown>): Promise<unknown> {
    if (!guest) return this.#requestTurns.add(send);
    const { instance, long = false } = guest;
    return this.#readTurns.add({ group: this.#namespaceOf(instance), member: instance, long }, send, signal);
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
      agent: options.guest ? this.#reads : this.#requests,
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
    if (options.guest) this.#holdTo(options.guest.budget, outgoing);
    else endWhenSilent(outgoing, options.timeout);
    outgoing.once('response', (incoming) => {
      incoming.pause();
      resolve(incoming);
    });
    outgoing.once('error', (error) => reject(unknownOutcome(error)));
    outgoing.end(body);
    return free;
  }

  /**
   * Ends a request when its answer has used up the budget. What has come and waits for a slow reader is not the guest's
   * fault: meanwhile its time stands still.
   */
  #holdTo(budget: ReadBudget, outgoing: ClientRequest): void {
    let progress = readBegun(budget, this.#clock.now());
    let reply: IncomingMessage | undefined;
    let cancel: () => void = () => undefined;
    const look = () => {
      cancel();
      // All is there: the guest has no more part in it.
      if (reply?.complete) return;
      const endsIn = readEndsAt(budget, progress) - this.#clock.now();
      if (endsIn > 0) {
        if (Number.isFinite(endsIn)) cancel = this.#clock.after(endsIn, look);
        return;
      }
      const error = new IncusError('TooSlow', tooSlow(budget));
      // A reader of the reply hears only of an error that is the reply's own.
      reply?.destroy(error);
      outgoing.destroy(error);
    };
    look();
    // Hears of bytes once they were handed to the reply: its reader has taken them by then, or they wait for it.
    const came = () => {
      if (!reply?.readableLength) return;
      progress = heldUp(progress, this.#clock.now());
    };
    outgoing.once('socket', (socket) => {
      socket.on('data', came);
      outgoing.once('close', () => socket.off('data', came));
    });
    outgoing.once('close', () => cancel());
    outgoing.once('response', (incoming) => {
      reply = incoming;
      incoming.on('data', (chunk: Buffer) => {
        const now = this.#clock.now();
        const wasHeld = progress.heldSince !== undefined;
        progress = bytesCame(budget, goesOn(progress, now), chunk.length, now);
        came();
        if (wasHeld) look();
      });
    });
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
    this.#requests.destroy();
    this.#reads.destroy();
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
    // Nobody waits for an idle stream: it need not keep the process alive.
    this.#idle.set(stream, setTimeout(() => stream.destroy(), longestIdle).unref());
    return true;
  }

  override reuseSocket(stream: Duplex, request: ClientRequest): void {
    clearTimeout(this.#idle.get(stream));
    super.reuseSocket(stream, request);
  }
}

/** Ends a request when nothing has come for so many milliseconds. */
function endWhenSilent(outgoing: ClientRequest, timeout: number): void {
  const watchdog = setTimeout(() => {
    outgoing.destroy(new IncusError('Unknown', `no answer within ${timeout} ms`));
  }, timeout);
  outgoing.once('close', () => clearTimeout(watchdog));
  outgoing.once('response', (incoming) => incoming.on('data', () => watchdog.refresh()));
}

/** Gives a plain stream, such as an SSH channel, the methods that Node's HTTP client calls on sockets. */
function asSocket(stream: Duplex): Duplex {
  const self = () => stream;
  for (const method of ['setNoDelay', 'setTimeout', 'setKeepAlive', 'ref', 'unref']) {
    if (!(method in stream)) Object.assign(stream, { [method]: self });
  }
  return stream;
}

function tooSlow({ longestMs, graceMs, leastBytesPerSecond }: ReadBudget): string {
  const rate = `${leastBytesPerSecond} bytes per second, with ${graceMs / 1000} s to spare`;
  return `the guest answers too slowly: it has ${longestMs / 1000} s, and must send at least ${rate}`;
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
