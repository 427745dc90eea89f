/**
 * Time, handed to everything that asks for it, so that a test can stand at any hour and move on at once.
 * Nothing else in controller/ reads the machine's clock (a lint rule says so).
 */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls `run` once, `milliseconds` from now. Returns a function that calls it off. */
  after(milliseconds: number, run: () => void): () => void;
}

/** setTimeout takes no more than 2^31-1 ms and fires at once when asked for more. */
const longestTimer = 2 ** 31 - 1;

/**
 * The machine's own clock. Its timers keep the process alive: there is somebody who waits for each, and it may be all that
 * the program waits for. Who needs one no longer calls it off.
 */
export const systemClock: Clock = {
  // eslint-disable-next-line no-restricted-properties -- the one place that reads it
  now: () => Date.now(),
  after(milliseconds, run) {
    const timer = setTimeout(run, Math.min(Math.max(milliseconds, 0), longestTimer));
    return () => clearTimeout(timer);
  },
};

/** Resolves after `milliseconds`; rejects with the signal's reason as soon as it is aborted. */
export function sleep(clock: Clock, milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const abandon = () => {
      cancel();
      reject(signal?.reason as Error);
    };
    const cancel = clock.after(milliseconds, () => {
      signal?.removeEventListener('abort', abandon);
      resolve();
    });
    signal?.addEventListener('abort', abandon, { once: true });
  });
}

/** Calls `run` every `milliseconds`, until the function that it returns is called. */
export function every(clock: Clock, milliseconds: number, run: () => void): () => void {
  let cancel: () => void = () => undefined;
  const again = () => {
    cancel = clock.after(milliseconds, () => {
      again();
      run();
    });
  };
  again();
  return () => cancel();
}
