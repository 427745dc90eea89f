import type { Clock } from '../clock.ts';

/** A burst at once, then one each interval, as in client-go's EventSourceObjectSpamFilter; and a bound for all. */
const perObject = { burst: 25, intervalMs: 300_000 };
const perProcess = { burst: 200, intervalMs: 100 };
/** Objects remembered; the one seen longest ago is forgotten first. */
const mostObjects = 4096;

interface Bucket {
  tokens: number;
  at: number;
}

/** Bounds how many Events are written: about one object, and in all. */
export class EventLimiter {
  readonly #clock: Clock;
  readonly #objects = new Map<string, Bucket>();
  readonly #process: Bucket;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#process = { tokens: perProcess.burst, at: clock.now() };
  }

  /** Whether an Event about the object with this uid may be written now; if so, it counts as written. */
  allows(uid: string): boolean {
    const now = this.#clock.now();
    const bucket = this.#objects.get(uid) ?? { tokens: perObject.burst, at: now };
    this.#objects.delete(uid);
    this.#objects.set(uid, bucket);
    if (this.#objects.size > mostObjects) {
      const [oldest] = this.#objects.keys();
      if (oldest !== undefined) this.#objects.delete(oldest);
    }
    refill(bucket, perObject, now);
    refill(this.#process, perProcess, now);
    if (bucket.tokens < 1 || this.#process.tokens < 1) return false;
    bucket.tokens--;
    this.#process.tokens--;
    return true;
  }
}

function refill(bucket: Bucket, rate: { burst: number; intervalMs: number }, now: number): void {
  bucket.tokens = Math.min(bucket.tokens + (now - bucket.at) / rate.intervalMs, rate.burst);
  bucket.at = now;
}
