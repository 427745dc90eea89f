import * as z from 'zod';
import { beginningOf } from '../api/object-name.ts';
import { sleep, type Clock } from '../clock.ts';
import { ApiError, hasReason } from './api-error.ts';
import type { CallOptions, KubeClient } from './client.ts';
import { EventLimiter } from './event-limiter.ts';
import { microTime } from './micro-time.ts';
import type { ObjectRef, Resource } from './resource.ts';

/** The object an Event is about. */
export interface Regarding {
  apiVersion: string;
  kind: string;
  name: string;
  namespace?: string | undefined;
  uid: string;
  resourceVersion?: string | undefined;
}

/** What happened. The same again within a few minutes is counted, not written anew. */
export interface Happening {
  type: 'Normal' | 'Warning';
  /** Why, in CamelCase: at most 128 characters. */
  reason: string;
  /** What the controller did or tried, in CamelCase: at most 128 characters. */
  action: string;
  /** For people; cut at 1024 characters. */
  note: string;
  /** About what somebody did, not what became of something: counted by itself, so that no storm of jobs drowns it. */
  isAccess?: boolean;
}

export interface EventRecorderOptions {
  client: KubeClient;
  clock: Clock;
  /** Name of the controller, as a qualified name: `ci.pikaci.dev/cijob-controller`. */
  controller: string;
  /** Which process of it: the pod's name, or the host's. */
  instance: string;
  /** Counts Events that were not written. */
  onDropped: () => void;
  /** Hears why. */
  onError: (error: unknown) => void;
}

/** Events waiting to be sent; more are dropped, as the API server is evidently too slow for them. */
const longestQueue = 1000;
const attempts = 3;
const requestTimeoutMs = 10_000;
/** How long the same event is a continuation of a series; client-go finishes a series after 6 minutes, too. */
const seriesMs = 6 * 60_000;
/** A series is written at its first repetition, and then at most so often. */
const seriesWriteMs = 60_000;

const events: Resource<unknown> = {
  group: 'events.k8s.io',
  version: 'v1',
  plural: 'events',
  schema: z.unknown(),
};

interface Series {
  ref: ObjectRef & { namespace: string };
  count: number;
  lastAt: number;
  writtenAt: number;
  body: object;
  /** A write of the count is waiting for its time. */
  pending: boolean;
}

/**
 * Writes events.k8s.io/v1 Events. Recording never waits and never fails: a slow or refusing API server costs Events,
 * which are counted, and nothing else.
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #limiter: EventLimiter;
  readonly #accessLimiter: EventLimiter;
  readonly #series = new Map<string, Series>();
  readonly #queue: ((call: CallOptions) => Promise<unknown>)[] = [];
  readonly #closing = new AbortController();
  /** Events named so far. */
  #named = 0;
  #sending: Promise<void> | undefined;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#limiter = new EventLimiter(options.clock);
    this.#accessLimiter = new EventLimiter(options.clock);
  }

  record(regarding: Regarding, happening: Happening): void {
    const { clock, onDropped } = this.#options;
    const now = clock.now();
    const { type, reason, action, note } = happening;
    const key = JSON.stringify([regarding.uid, type, reason, action, note]);
    const known = this.#series.get(key);
    if (known && now - known.lastAt < seriesMs) {
      known.count++;
      known.lastAt = now;
      this.#scheduleSeries(known);
      return;
    }
    const limiter = happening.isAccess ? this.#accessLimiter : this.#limiter;
    if (!limiter.allows(regarding.uid)) {
      onDropped();
      return;
    }
    const namespace = regarding.namespace ?? 'default';
    // Unique without asking: as client-go, the object's name and a time. kubectl lists Events by name, so in order.
    const name = `${beginningOf(regarding.name, 230)}.${hex(now, 12)}${hex(this.#named % 0x10000, 4)}`;
    this.#named += 1;
    const body = this.#body({ namespace, name }, regarding, happening, now);
    this.#series.set(key, {
      ref: { namespace, name },
      count: 1,
      lastAt: now,
      writtenAt: 0,
      body,
      pending: false,
    });
    this.#forgetOld(now);
    this.#send((call) => this.#options.client.create(events, namespace, body, call));
  }

  /** Sends what is waiting, for at most `milliseconds`, and drops the rest. */
  async close(milliseconds: number): Promise<void> {
    const cancel = this.#options.clock.after(milliseconds, () => this.#closing.abort(new Error('closing')));
    await this.#sending;
    cancel();
    this.#closing.abort(new Error('closed'));
  }

  #body(ref: ObjectRef, regarding: Regarding, happening: Happening, now: number): object {
    const { controller, instance } = this.#options;
    // Field by field: the caller may hand in a whole object's metadata.
    const { apiVersion, kind, name, namespace, uid, resourceVersion } = regarding;
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: ref,
      eventTime: microTime(now),
      type: happening.type,
      reason: happening.reason.slice(0, 128),
      action: happening.action.slice(0, 128),
      note: happening.note.slice(0, 1024),
      regarding: { apiVersion, kind, name, namespace, uid, resourceVersion },
      reportingController: controller,
      reportingInstance: instance.slice(0, 128),
    };
  }

  #scheduleSeries(series: Series): void {
    if (series.pending) return;
    series.pending = true;
    const { clock } = this.#options;
    const wait = Math.max(series.writtenAt + seriesWriteMs - clock.now(), 0);
    clock.after(wait, () => {
      series.pending = false;
      series.writtenAt = clock.now();
      this.#send((call) => this.#writeSeries(series, call));
    });
  }

  async #writeSeries(series: Series, call: CallOptions): Promise<void> {
    const { client } = this.#options;
    const patch = { series: { count: series.count, lastObservedTime: microTime(series.lastAt) } };
    try {
      await client.mergePatch(events, series.ref, patch, call);
    } catch (error) {
      if (!hasReason(error, 'NotFound')) throw error;
      // The Event has outlived the API server's memory of it, or was never written.
      await client.create(events, series.ref.namespace, { ...series.body, ...patch }, call);
    }
  }

  #forgetOld(now: number): void {
    for (const [key, { lastAt, pending }] of this.#series) {
      if (this.#series.size > longestQueue || (now - lastAt >= seriesMs && !pending))
        this.#series.delete(key);
    }
  }

  #send(write: (call: CallOptions) => Promise<unknown>): void {
    if (this.#closing.signal.aborted || this.#queue.length >= longestQueue) {
      this.#options.onDropped();
      return;
    }
    this.#queue.push(write);
    this.#sending ??= this.#drain();
  }

  async #drain(): Promise<void> {
    for (let write = this.#queue.shift(); write; write = this.#queue.shift()) {
      try {
        await this.#try(write);
      } catch (error) {
        this.#options.onDropped();
        this.#options.onError(error);
      }
    }
    // In the same turn in which the queue was seen empty, so that whatever comes next starts a new one.
    this.#sending = undefined;
  }

  async #try(write: (call: CallOptions) => Promise<unknown>): Promise<void> {
    const { signal } = this.#closing;
    for (let attempt = 1; ; attempt++) {
      try {
        signal.throwIfAborted();
        await write({ signal, timeoutMs: requestTimeoutMs });
        return;
      } catch (error) {
        // Our own earlier attempt, whose answer was lost.
        if (hasReason(error, 'AlreadyExists')) return;
        if (attempt === attempts || signal.aborted || !isPassing(error)) throw error;
        const seconds = error.retryAfterSeconds ?? 2 ** attempt;
        await sleep(this.#options.clock, seconds * 1000, signal);
      }
    }
  }
}

/** Whether the same request may succeed a little later. */
function isPassing(error: unknown): error is ApiError {
  return error instanceof ApiError && (error.status === 429 || error.outcomeUnknown);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
