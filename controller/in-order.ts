/** What can be held up, such as a WebSocket. */
export interface Source {
  pause(): void;
  resume(): void;
}

/**
 * Takes what a source sends, one piece at a time. The source is held up until all that it has sent is taken, so that no
 * more waits here than what came with one read.
 */
export class InOrder {
  readonly #source: Source;
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(source: Source) {
    this.#source = source;
  }

  /** Takes a piece once those before it are taken. A piece that cannot be taken is lost, and those after it are not. */
  take(piece: () => void | Promise<void>): void {
    this.#waiting += 1;
    this.#source.pause();
    this.#last = this.#last
      .then(piece)
      .catch(() => undefined)
      .finally(() => {
        this.#waiting -= 1;
        // Not before: each read may bring many pieces, and one taken would let in as many more.
        if (this.#waiting === 0) this.#source.resume();
      });
  }

  /** Resolves when all that has come so far is taken. */
  get taken(): Promise<void> {
    return this.#last;
  }
}

/**
 * Passes values on, one at a time. Of those that come while one is on its way, only the newest follows.
 *
 * @param pass resolves when the next one may follow
 */
export function newestOnly<T>(pass: (value: T) => Promise<void>): (value: T) => void {
  let newest: { value: T } | undefined;
  let busy = false;
  const passOn = async (): Promise<void> => {
    busy = true;
    for (let next = newest; next; next = newest) {
      newest = undefined;
      await pass(next.value).catch(() => undefined);
    }
    busy = false;
  };
  return (value) => {
    newest = { value };
    if (!busy) void passOn();
  };
}
