import { Refusal } from './refusal.ts';

/** How many may be open at once. */
export interface PlaceLimits {
  /** Of one user. */
  ofUser: number;
  /** In one namespace: that of the CiJob, whoever asks. */
  ofNamespace: number;
  /** In all. */
  most: number;
  /** Beyond `most`, for namespaces that have fewer than `least`. */
  reserve: number;
  /** What every namespace has, as long as the reserve lasts. */
  least: number;
}

/** Counts what is open at once by user and by namespace, so that no one of them takes all there is. */
export class Places {
  readonly #limits: PlaceLimits;
  readonly #what: string;
  readonly #users = new Map<string, number>();
  readonly #namespaces = new Map<string, number>();
  #open = 0;

  /** @param what names them in the refusal: "logs" */
  constructor(limits: PlaceLimits, what: string) {
    this.#limits = limits;
    this.#what = what;
  }

  /** Takes a place. Returns what gives it back, to be called once. @throws Refusal when there is none left. */
  enter(username: string, namespace: string): () => void {
    const full = this.#full(username, namespace);
    if (full !== undefined) {
      throw new Refusal(429, 'TooManyRequests', full, { 'Retry-After': '5' });
    }
    this.#add(username, namespace, 1);
    return () => this.#add(username, namespace, -1);
  }

  #full(username: string, namespace: string): string | undefined {
    const { ofUser, ofNamespace, most, reserve, least } = this.#limits;
    const there = this.#namespaces.get(namespace) ?? 0;
    if ((this.#users.get(username) ?? 0) >= ofUser)
      return `one user has ${ofUser} ${this.#what} at once at most`;
    if (there >= ofNamespace) {
      return `namespace ${namespace} has ${ofNamespace} ${this.#what} open, the most at once`;
    }
    if (this.#open >= (there < least ? most + reserve : most)) {
      return `the controller has ${this.#open} ${this.#what} open, as many as it can`;
    }
    return undefined;
  }

  #add(username: string, namespace: string, by: number): void {
    this.#open += by;
    count(this.#users, username, by);
    count(this.#namespaces, namespace, by);
  }
}

function count(counts: Map<string, number>, key: string, by: number): void {
  const now = (counts.get(key) ?? 0) + by;
  if (now > 0) counts.set(key, now);
  else counts.delete(key);
}
