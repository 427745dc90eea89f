import type { IncomingMessage } from 'node:http';
import { sleep, type Clock } from '../clock.ts';
import { ApiError } from './api-error.ts';
import { Backoff, type BackoffLimits } from './backoff.ts';
import type { KubeClient, ListQuery } from './client.ts';
import { linesOf } from './lines.ts';
import { ObjectStore, type OnChange, type Stored } from './object-store.ts';
import type { Resource } from './resource.ts';
import { identityOf, readWatchEvent, type Identity } from './watch-event.ts';

export interface ReflectorOptions<T extends Stored> {
  client: KubeClient;
  clock: Clock;
  resource: Resource<T>;
  query?: ListQuery;
  /** Called in order, one change after the other, once the store shows the change. What it throws goes to `onError`. */
  onChange: OnChange<T>;
  /** Hears what went wrong. The reflector goes on whatever it was. */
  onError: (error: unknown) => void;
  /** Uniform in [0, 1); Math.random by default. */
  random?: () => number;
  limits?: Partial<ReflectorLimits>;
}

/** Times in milliseconds. */
export interface ReflectorLimits {
  /** Between failed attempts. */
  backoff: BackoffLimits;
  /** An attempt that lasted this long was no failure: the next one follows at once. */
  healthyAfterMs: number;
  /** Longest wait for the head of an answer. */
  answerMs: number;
  /** Silence after which a watch is held to be dead. The API server sends a bookmark a minute. */
  silenceMs: number;
  /** How long the server is asked to keep a watch open: between this and twice this. */
  watchMs: number;
  /** Age at which a full list is taken anew, in case the watch ever lied. */
  relistMs: number;
  pageSize: number;
  maxLineBytes: number;
}

const defaultLimits: ReflectorLimits = {
  backoff: { baseMs: 400, maxMs: 10_000 },
  healthyAfterMs: 10_000,
  answerMs: 30_000,
  silenceMs: 75_000,
  watchMs: 300_000,
  relistMs: 3_600_000,
  pageSize: 500,
  maxLineBytes: 8 * 2 ** 20,
};

/** After so many failed watches in a row, the version we watch from may be the reason: list anew. */
const failuresBeforeRelist = 3;

/**
 * Keeps a local copy of a collection: lists it, then watches it from there, again and again, until stopped. In the
 * shape of client-go's Reflector. client-node's informer is not enough: it stops at any error but 410 and a timeout,
 * leaves a delete and recreate in a gap unnoticed, and reads lines of any length.
 */
export class Reflector<T extends Stored> {
  readonly #options: ReflectorOptions<T>;
  readonly #limits: ReflectorLimits;
  readonly #store: ObjectStore<T>;
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  readonly #random: () => number;
  readonly #unreadable = new Map<string, string>();
  readonly #synced = Promise.withResolvers<undefined>();
  #running: Promise<void> | undefined;
  #version: string | undefined;
  #listedAt = 0;
  #contactAt: number | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#random = options.random ?? Math.random;
    this.#store = new ObjectStore(options.onChange, options.onError);
    this.#backoff = new Backoff(this.#limits.backoff, this.#random);
  }

  /** Resolves when the first list is in the store; never rejects. */
  get synced(): Promise<void> {
    return this.#synced.promise;
  }

  /** When the API server last told us anything, in milliseconds since the epoch: the view is at least as new. */
  get contactAt(): number | undefined {
    return this.#contactAt;
  }

  /** Objects that are there but that we cannot read, by key, with their uid. They exist: do not clean up after them. */
  get unreadable(): ReadonlyMap<string, string> {
    return this.#unreadable;
  }

  get(key: string): T | undefined {
    return this.#store.get(key);
  }

  list(): T[] {
    return [...this.#store.values()];
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends the watch; resolves when nothing of it is left. The store stays readable. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  async #run(): Promise<void> {
    const { clock, onError } = this.#options;
    while (!this.#stopped()) {
      const startedAt = clock.now();
      let retryAfterMs = 0;
      try {
        const from = this.#version ?? (await this.#list());
        await this.#watch(from);
      } catch (error) {
        if (this.#stopped()) return;
        onError(error instanceof ApiError ? error : this.#brokenOff(error));
        if (error instanceof ApiError) {
          retryAfterMs = (error.retryAfterSeconds ?? 0) * 1000;
          if (error.status === 410) this.#version = undefined;
        }
      }
      const healthy = clock.now() - startedAt >= this.#limits.healthyAfterMs;
      if (healthy) this.#backoff.reset();
      const wait = Math.max(healthy ? 0 : this.#backoff.next(), retryAfterMs);
      const relist = clock.now() - this.#listedAt >= this.#limits.relistMs;
      if (relist || this.#backoff.failures >= failuresBeforeRelist) this.#version = undefined;
      await sleep(clock, wait, this.#stop.signal).catch(() => undefined);
    }
  }

  #brokenOff(cause: unknown): Error {
    const message = cause instanceof Error ? cause.message : 'unknown error';
    return new Error(`watch ${this.#options.resource.plural}: ${message.slice(0, 300)}`, { cause });
  }

  /** Brings the store to the state of a full list, and returns the version of that. */
  async #list(): Promise<string> {
    const { keys, version } = await this.#pages(this.#limits.pageSize);
    this.#store.keepOnly(keys);
    for (const key of this.#unreadable.keys()) if (!keys.has(key)) this.#unreadable.delete(key);
    this.#listedAt = this.#options.clock.now();
    this.#version = version;
    this.#synced.resolve(undefined);
    return version;
  }

  async #pages(limit: number): Promise<{ keys: Set<string>; version: string }> {
    const { client, resource, query = {}, clock } = this.#options;
    const keys = new Set<string>();
    let token: string | undefined;
    for (;;) {
      try {
        const call = { signal: this.#stop.signal, timeoutMs: this.#limits.answerMs };
        const page = await client.list(resource, query, { limit, continue: token }, call);
        this.#contactAt = clock.now();
        for (const item of page.items) keys.add(this.#take(item).key);
        if (page.continue === undefined) return { keys, version: page.resourceVersion };
        token = page.continue;
      } catch (error) {
        // The list outlived its version, and in pages it would again: take it whole, as client-go does.
        const outlived = token !== undefined && error instanceof ApiError && error.status === 410;
        if (!outlived) throw error;
        return this.#pages(0);
      }
    }
  }

  async #watch(from: string): Promise<void> {
    const { client, resource, query = {} } = this.#options;
    const { watchMs, maxLineBytes, answerMs } = this.#limits;
    const timeoutSeconds = Math.ceil((watchMs * (1 + this.#random())) / 1000);
    const call = { signal: this.#stop.signal, timeoutMs: answerMs };
    const stream = await client.watch(resource, query, { resourceVersion: from, timeoutSeconds }, call);
    try {
      for await (const line of linesOf(this.#guarded(stream), maxLineBytes)) this.#handle(line);
    } finally {
      stream.destroy();
    }
  }

  /** The stream's chunks; it breaks once nothing has come for too long, as a half-open connection never does. */
  async *#guarded(stream: IncomingMessage): AsyncGenerator<Buffer> {
    const { clock } = this.#options;
    const { silenceMs } = this.#limits;
    const arm = () => clock.after(silenceMs, () => stream.destroy(new Error(`silent for ${silenceMs} ms`)));
    let disarm = arm();
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        this.#contactAt = clock.now();
        disarm();
        yield chunk;
        disarm = arm();
      }
    } finally {
      disarm();
    }
  }

  #handle(line: string): void {
    const event = readWatchEvent(line, `watch ${this.#options.resource.plural}`);
    if (event.type === 'BOOKMARK') {
      this.#version = event.resourceVersion;
    } else if (event.type === 'DELETED') {
      const { key, resourceVersion } = identityOf(event.object);
      this.#unreadable.delete(key);
      this.#store.remove(key);
      this.#version = resourceVersion;
    } else {
      this.#version = this.#take(event.object).resourceVersion;
    }
  }

  /** Stores an object that is there. One we cannot read keeps its place: what we knew of it still stands. */
  #take(object: unknown): Identity {
    const identity = identityOf(object);
    const { key, uid } = identity;
    const read = this.#options.resource.schema.safeParse(object);
    if (read.success) {
      this.#unreadable.delete(key);
      this.#store.put(read.data);
    } else {
      this.#unreadable.set(key, uid);
      if (this.#store.get(key)?.metadata.uid !== uid) this.#store.remove(key);
      const message = read.error.issues.map(({ path, code }) => `${path.join('.')}: ${code}`).join('; ');
      this.#options.onError(new ApiError(key, { status: 200, reason: 'InvalidResponse', message }));
    }
    return identity;
  }
}
