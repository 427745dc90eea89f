import PQueue from 'p-queue';
import type { Clock } from '../clock.ts';

/** What a queue tells about itself, for the `workqueue_*` metrics. Durations are in seconds. */
export interface WorkQueueObserver {
  added(): void;
  started(waitedSeconds: number): void;
  finished(workedSeconds: number): void;
  retried(): void;
}

export interface WorkQueueOptions {
  clock: Clock;
  /** How many keys are processed at once. */
  concurrency: number;
  /** Handles one key. When it rejects, the key comes back after its backoff. */
  process: (key: string) => Promise<void>;
  /** Hears of every rejection of `process`. */
  onError: (key: string, error: unknown) => void;
  /** Delay of the first retry of a key; it doubles with every further one up to the maximum. */
  backoff?: { baseMs: number; maxMs: number };
  observer?: WorkQueueObserver;
}

const defaultBackoff = { baseMs: 50, maxMs: 60_000 };

/**
 * A queue of keys, in the shape of client-go's `util/workqueue`. A key holds nothing of the event that added it:
 * whoever processes it looks at the world anew. Hence three promises:
 *
 * - a key is never processed twice at once;
 * - adds of a key that is waiting coalesce into one processing;
 * - an add while the key is being processed leads to one more processing afterwards: no wake-up is lost.
 */
export class WorkQueue {
  readonly #clock: Clock;
  readonly #process: (key: string) => Promise<void>;
  readonly #onError: (key: string, error: unknown) => void;
  readonly #backoff: { baseMs: number; maxMs: number };
  readonly #observer: WorkQueueObserver | undefined;
  readonly #workers: PQueue;
  /** Keys that need processing, with the time of the add: waiting for a worker, or being processed once more after. */
  readonly #dirty = new Map<string, number>();
  /** Keys being processed, with the time of the start. */
  readonly #processing = new Map<string, number>();
  readonly #delayed = new Map<string, { at: number; cancel: () => void }>();
  readonly #failures = new Map<string, number>();
  #shuttingDown = false;

  constructor(options: WorkQueueOptions) {
    this.#clock = options.clock;
    this.#process = options.process;
    this.#onError = options.onError;
    this.#backoff = options.backoff ?? defaultBackoff;
    this.#observer = options.observer;
    this.#workers = new PQueue({ concurrency: options.concurrency });
  }

  /** Keys waiting for a worker. */
  get depth(): number {
    let both = 0;
    for (const key of this.#processing.keys()) if (this.#dirty.has(key)) both++;
    return this.#dirty.size - both;
  }

  /** Seconds of work in progress, summed over the keys being processed: it grows when a worker is stuck. */
  get unfinishedSeconds(): number {
    let milliseconds = 0;
    for (const startedAt of this.#processing.values()) milliseconds += this.#clock.now() - startedAt;
    return milliseconds / 1000;
  }

  /** Has the key processed soon, at least once from now. Ignored after {@link shutDown}. */
  add(key: string): void {
    if (this.#shuttingDown || this.#dirty.has(key)) return;
    this.#dirty.set(key, this.#clock.now());
    this.#observer?.added();
    if (!this.#processing.has(key)) this.#enqueue(key);
  }

  /** Adds the key after a delay. Of several delays running for one key, the earliest counts, once. */
  addAfter(key: string, milliseconds: number): void {
    if (milliseconds <= 0) {
      this.add(key);
      return;
    }
    if (this.#shuttingDown) return;
    const at = this.#clock.now() + milliseconds;
    const waiting = this.#delayed.get(key);
    if (waiting) {
      if (waiting.at <= at) return;
      waiting.cancel();
    }
    const cancel = this.#clock.after(milliseconds, () => {
      this.#delayed.delete(key);
      this.add(key);
    });
    this.#delayed.set(key, { at, cancel });
  }

  /** Calls off an add that was to come after a delay. */
  callOff(key: string): void {
    this.#delayed.get(key)?.cancel();
    this.#delayed.delete(key);
  }

  /** Adds the key after its backoff, which doubles until {@link forget}. Returns the delay in milliseconds. */
  addRateLimited(key: string): number {
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    const delay = Math.min(this.#backoff.baseMs * 2 ** failures, this.#backoff.maxMs);
    this.#observer?.retried();
    this.addAfter(key, delay);
    return delay;
  }

  /** Ends the key's backoff: the next failure is a first one again. Without it, every key is remembered for ever. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** How often the key was added with a backoff since it was last forgotten. */
  retries(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  /**
   * Takes no more keys, starts nothing more, and resolves once what is being processed has ended. Keys still waiting
   * are dropped: whoever starts next looks at everything anyway.
   */
  async shutDown(): Promise<void> {
    this.#shuttingDown = true;
    for (const { cancel } of this.#delayed.values()) cancel();
    this.#delayed.clear();
    await this.#workers.onIdle();
    this.#dirty.clear();
  }

  #enqueue(key: string): void {
    if (this.#shuttingDown) return;
    void this.#workers.add(() => this.#work(key));
  }

  async #work(key: string): Promise<void> {
    // Whoever added the key finishes what it is at first: a burst of adds in one turn is one processing.
    await Promise.resolve();
    if (this.#shuttingDown) return;
    const startedAt = this.#clock.now();
    const addedAt = this.#dirty.get(key) ?? startedAt;
    // No await between these two, and none in `add`: at any time a wanted key is dirty, being processed, or both.
    this.#dirty.delete(key);
    this.#processing.set(key, startedAt);
    this.#observer?.started((startedAt - addedAt) / 1000);
    try {
      await this.#process(key);
    } catch (error) {
      this.#onError(key, error);
      this.addRateLimited(key);
    } finally {
      this.#processing.delete(key);
      this.#observer?.finished((this.#clock.now() - startedAt) / 1000);
      if (this.#dirty.has(key)) this.#enqueue(key);
    }
  }
}
