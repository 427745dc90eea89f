import { Refusal } from './refusal.ts';

/** Counts what each user has open at once, so that no one takes all there is. */
export class PerUser {
  readonly #open = new Map<string, number>();
  readonly #most: number;
  readonly #what: string;

  /** @param what names them in the refusal: "logs" */
  constructor(most: number, what: string) {
    this.#most = most;
    this.#what = what;
  }

  /** Takes a place. Returns what gives it back, to be called once. @throws Refusal when there is none left. */
  enter(username: string): () => void {
    const open = this.#open.get(username) ?? 0;
    if (open >= this.#most) {
      throw new Refusal(429, 'TooManyRequests', `${this.#most} ${this.#what} at once are enough`, {
        'Retry-After': '5',
      });
    }
    this.#open.set(username, open + 1);
    return () => {
      const left = (this.#open.get(username) ?? 1) - 1;
      if (left > 0) this.#open.set(username, left);
      else this.#open.delete(username);
    };
  }
}
