import type { Clock } from '../clock.ts';

/** A burst at once, then one each interval. */
export interface Rate {
  burst: number;
  intervalMs: number;
}

interface Bucket {
  tokens: number;
  at: number;
}

/** Token buckets by key: how often something may be done for each. Of too many keys the one used longest ago is forgotten. */
export class TokenBuckets {
  readonly #clock: Clock;
  readonly #rate: Rate;
  readonly #most: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Clock, rate: Rate, most: number) {
    this.#clock = clock;
    this.#rate = rate;
    this.#most = most;
  }

  /** Whether it may be done once now; if so, that counts. */
  take(key: string): boolean {
    const bucket = this.#refilled(key);
    if (bucket.tokens < 1) return false;
    bucket.tokens--;
    return true;
  }

  /** What was taken was not used, or should not count. */
  giveBack(key: string): void {
    const bucket = this.#refilled(key);
    bucket.tokens = Math.min(bucket.tokens + 1, this.#rate.burst);
  }

  #refilled(key: string): Bucket {
    const now = this.#clock.now();
    const { burst, intervalMs } = this.#rate;
    const known = this.#buckets.get(key) ?? { tokens: burst, at: now };
    const bucket = { tokens: Math.min(known.tokens + (now - known.at) / intervalMs, burst), at: now };
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > this.#most) {
      const [oldest] = this.#buckets.keys();
      if (oldest !== undefined) this.#buckets.delete(oldest);
    }
    return bucket;
  }
}
