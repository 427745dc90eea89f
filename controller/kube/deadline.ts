import { setMaxListeners } from 'node:events';
import type { Clock } from '../clock.ts';
import { ApiError } from './api-error.ts';

/** The caller's signal and the time limit of one request, as one signal that leaves no listener behind. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #give = () => this.#controller.abort();
  readonly #timeoutMs: number;
  #timedOut = false;
  #cancel: () => void;

  constructor(clock: Clock, request: { signal?: AbortSignal | undefined; timeoutMs?: number | undefined }) {
    request.signal?.throwIfAborted();
    this.#caller = request.signal;
    if (this.#caller) {
      // One listener a request, removed at its end; Node would take more than ten for a leak.
      setMaxListeners(0, this.#caller);
      this.#caller.addEventListener('abort', this.#give);
    }
    this.#timeoutMs = request.timeoutMs ?? 30_000;
    this.#cancel = clock.after(this.#timeoutMs, () => {
      this.#timedOut = true;
      this.#controller.abort();
    });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The time limit is over; the caller's signal stays. */
  lift(): void {
    this.#cancel();
  }

  end(): void {
    this.#cancel();
    this.#caller?.removeEventListener('abort', this.#give);
  }

  /** What to throw for an error seen under this deadline. */
  explain(request: string, error: unknown): Error {
    if (error instanceof ApiError) return error;
    if (this.#caller?.aborted) return this.#caller.reason as Error;
    if (this.#timedOut) {
      const message = `no answer within ${this.#timeoutMs} ms`;
      return new ApiError(request, { status: 0, reason: 'Timeout', message });
    }
    return new ApiError(request, { status: 0, reason: 'NoAnswer', message: systemMessage(error) });
  }
}

/** The message of an error that the operating system or Node coded; others might quote a credential. */
export function systemMessage(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error';
  const code = (error as NodeJS.ErrnoException).code;
  return code === undefined ? error.name : `${code}: ${error.message}`.slice(0, 300);
}
