import { Refusal } from './refusal.ts';

/** How much of something is done at once. */
export interface LineLimits {
  /** In all. */
  atOnce: number;
  /** For one client. */
  ofClient: number;
  /** Of one client, waiting. */
  waiting: number;
}

interface Client {
  running: number;
  waiting: (() => void)[];
}

/**
 * Work for clients that is done a few at a time, each client in its turn: one that has much to do waits for itself,
 * not the others for it.
 */
export class FairLine {
  readonly #limits: LineLimits;
  /** In the order of their turns. */
  readonly #clients = new Map<string, Client>();
  #running = 0;

  constructor(limits: LineLimits) {
    this.#limits = limits;
  }

  /** Does the work when its turn has come. Rejects with a Refusal when too much of that client's waits already. */
  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const client = this.#clients.get(name) ?? { running: 0, waiting: [] };
    if (client.waiting.length >= this.#limits.waiting) {
      throw new Refusal(
        429,
        'TooManyRequests',
        'too many requests from here wait for the cluster to answer',
        {
          'Retry-After': '5',
        },
      );
    }
    this.#clients.set(name, client);
    await new Promise<void>((resolve) => {
      client.waiting.push(resolve);
      this.#go();
    });
    try {
      return await work();
    } finally {
      this.#running--;
      client.running--;
      if (client.running === 0 && client.waiting.length === 0) this.#clients.delete(name);
      this.#go();
    }
  }

  /** Begins what may be begun. */
  #go(): void {
    while (this.#running < this.#limits.atOnce) {
      const next = [...this.#clients].find(
        ([, { running, waiting }]) => waiting.length > 0 && running < this.#limits.ofClient,
      );
      if (!next) return;
      const [name, client] = next;
      // Its next turn comes after that of all others.
      this.#clients.delete(name);
      this.#clients.set(name, client);
      this.#running++;
      client.running++;
      client.waiting.shift()?.();
    }
  }
}
