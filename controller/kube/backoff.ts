/** Bounds of the wait between two attempts, in milliseconds. */
export interface BackoffLimits {
  baseMs: number;
  maxMs: number;
}

/**
 * Jittered exponential backoff: each wait is drawn from the upper half of a span that doubles up to the maximum, so that
 * many clients that were cut off together do not come back together, and none comes back at once.
 */
export class Backoff {
  readonly #limits: BackoffLimits;
  readonly #random: () => number;
  #failures = 0;

  /** @param random Uniform in [0, 1). */
  constructor(limits: BackoffLimits, random: () => number) {
    this.#limits = limits;
    this.#random = random;
  }

  /** Attempts since the last {@link reset}. */
  get failures(): number {
    return this.#failures;
  }

  /** How long to wait before the next attempt, in milliseconds. */
  next(): number {
    const span = Math.min(this.#limits.baseMs * 2 ** this.#failures++, this.#limits.maxMs);
    return span * (0.5 + this.#random() / 2);
  }

  reset(): void {
    this.#failures = 0;
  }
}
