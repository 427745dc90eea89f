import type { Clock } from '../../../controller/clock.ts';

/** The model's time: stands still until the world has nothing else to do. */
export class ModelClock {
  #now = Date.parse('2026-01-01T00:00:00Z');
  #timers: { at: number; run: () => void; owner: string }[] = [];

  now(): number {
    return this.#now;
  }

  /** The clock that one process sees. Its timers die with it. */
  of(owner: string): Clock {
    return {
      now: () => this.#now,
      after: (milliseconds, run) => {
        const timer = { at: this.#now + milliseconds, run, owner };
        this.#timers.push(timer);
        return () => {
          this.#timers = this.#timers.filter((other) => other !== timer);
        };
      },
    };
  }

  forget(owner: string): void {
    this.#timers = this.#timers.filter((timer) => timer.owner !== owner);
  }

  /** When the next timer is due. */
  next(): number | undefined {
    return this.#timers.length === 0 ? undefined : Math.min(...this.#timers.map(({ at }) => at));
  }

  /** Moves on to a time, firing what falls due meanwhile. */
  to(time: number): void {
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= time).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#now = Math.max(this.#now, due.at);
      due.run();
    }
    this.#now = Math.max(this.#now, time);
  }
}
