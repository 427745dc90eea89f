import { once } from 'node:events';
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { every, sleep, type Clock } from '../clock.ts';

/** Bytes read and sent at a time. */
export const pieceBytes = 128 * 1024;
/** A reader that takes nothing for so long is cut off, in milliseconds. */
const stallTimeout = 10 * 60_000;
/** The cluster is asked again so often whether the reader may read, in milliseconds: rights are taken away. */
const reviewInterval = 60_000;

/** What is sent to one reader, for as long as they may read and do read. */
export class Delivery {
  /** Bytes sent so far, headers aside. */
  bytes = 0;
  /** Resolves when the connection is closed. */
  readonly closed: Promise<'closed'>;
  readonly #response: ServerResponse;
  readonly #clock: Clock;
  readonly #again: () => Promise<void>;
  #stopReviews: () => void = () => undefined;
  #begun = false;
  #broken: { by: unknown } | undefined;

  /** @param again asks the cluster again; rejects when the reader may not read any more. */
  constructor(clock: Clock, response: ServerResponse, again: () => Promise<void>) {
    this.#clock = clock;
    this.#response = response;
    this.#again = again;
    this.closed = new Promise((resolve) => response.once('close', () => resolve('closed')));
  }

  begin(headers: OutgoingHttpHeaders): void {
    this.#begun = true;
    this.#response.writeHead(200, {
      ...headers,
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
    });
    this.#response.flushHeaders();
    this.#stopReviews = every(this.#clock, reviewInterval, () => {
      this.#again().catch((error: unknown) => {
        this.#broken ??= { by: error };
        this.#response.destroy();
      });
    });
  }

  /**
   * Sends a piece, and waits until the reader takes more. False: they have gone.
   *
   * @throws Refusal when they may not read any more; Error when they take nothing.
   */
  async send(piece: Buffer): Promise<boolean> {
    this.bytes += piece.length;
    if (!this.#response.write(piece)) await this.#taken('drain');
    return this.goesOn();
  }

  /** Whether there is somebody to send to. @throws Refusal when they may not read any more. */
  goesOn(): boolean {
    if (this.#broken) throw this.#broken.by;
    return !this.#response.destroyed;
  }

  /** Says that this is the end, and waits until all is taken. False: the reader has gone before. */
  async end(): Promise<boolean> {
    const taken = this.#taken('finish');
    this.#response.end();
    await taken;
    return this.goesOn() || this.#response.writableFinished;
  }

  /** Ends the connection, unless all was said: what was sent must not pass for the whole. */
  close(): void {
    this.#stopReviews();
    if (this.#begun && !this.#response.writableFinished) this.#response.destroy();
  }

  async #taken(sign: 'drain' | 'finish'): Promise<void> {
    const waiting = new AbortController();
    const { signal } = waiting;
    const timeout = sleep(this.#clock, stallTimeout, signal).then(() => {
      throw new Error('the reader takes nothing');
    });
    timeout.catch(() => undefined);
    try {
      await Promise.race([once(this.#response, sign, { signal }), this.closed, timeout]);
    } finally {
      waiting.abort();
    }
  }
}
