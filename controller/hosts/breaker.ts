/** Creations that fail in a row before a host is given none for a while. */
const tolerated = 3;
/** The first pause; it doubles with every trial that fails. In milliseconds. */
const firstPause = 15_000;
const longestPause = 5 * 60_000;

/**
 * Keeps jobs from a host that fails to create instances, such as one whose pool is full: a host on which everything
 * fails at once always has the most free slots. After a pause one job is let through; its creation decides.
 * Pure: the time and the jitter are passed in, in milliseconds and from 0 to 1.
 */
export class Breaker {
  #failures = 0;
  #why = '';
  #opensAt = 0;

  /** Notes that a creation worked. Returns whether that gives the host its jobs back. */
  succeeded(): boolean {
    const tripped = this.#failures >= tolerated;
    this.#failures = 0;
    return tripped;
  }

  /** Notes that one did not. Returns how long to wait before the next; 0 while it is tolerated. */
  failed(why: string, now: number, jitter: number): number {
    this.#failures += 1;
    this.#why = why;
    if (this.#failures < tolerated) return 0;
    return this.#pause(now, jitter);
  }

  /** Notes that a job was given to the host: where creations failed, it is the only one until its own has ended. */
  given(now: number, jitter: number): void {
    // A job that is cancelled before it creates anything says nothing: another one is let through after the pause.
    if (this.#failures >= tolerated) this.#pause(now, jitter);
  }

  /** Why the host is given no jobs now; undefined if it is. */
  refusal(now: number): string | undefined {
    if (this.#failures < tolerated || now >= this.#opensAt) return undefined;
    return `creating instances failed ${this.#failures} times in a row: ${this.#why}`;
  }

  #pause(now: number, jitter: number): number {
    const ceiling = Math.min(longestPause, firstPause * 2 ** (this.#failures - tolerated));
    const pause = ceiling * (0.75 + jitter / 4);
    this.#opensAt = now + pause;
    return pause;
  }
}
