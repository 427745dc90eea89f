import type { Clock } from '../clock.ts';
import { TokenBuckets } from './token-buckets.ts';

/** A burst at once, then one each interval, as in client-go's EventSourceObjectSpamFilter; and a bound for all. */
const perObject = { burst: 25, intervalMs: 300_000 };
const perProcess = { burst: 200, intervalMs: 100 };
/** Objects remembered. */
const mostObjects = 4096;
const process = 'process';

/** Bounds how many Events are written: about one object, and in all. */
export class EventLimiter {
  readonly #objects: TokenBuckets;
  readonly #process: TokenBuckets;

  constructor(clock: Clock) {
    this.#objects = new TokenBuckets(clock, perObject, mostObjects);
    this.#process = new TokenBuckets(clock, perProcess, 1);
  }

  /** Whether an Event about the object with this uid may be written now; if so, it counts as written. */
  allows(uid: string): boolean {
    if (!this.#objects.take(uid)) return false;
    if (this.#process.take(process)) return true;
    this.#objects.giveBack(uid);
    return false;
  }
}
