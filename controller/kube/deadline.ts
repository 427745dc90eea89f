import { setMaxListeners } from 'node:events';
import type { Clock } from '../clock.ts';
import { ApiError } from './api-error.ts';

/**
 * The caller's signal and the patience of one request, as one signal that leaves no listener behind. Patience is for
 * silence, not for slowness: over a bad line, a long list may take minutes and yet arrive.
 */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #give = () => this.#controller.abort();
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  #timedOut = false;
  #cancel: () => void;

  constructor(clock: Clock, request: { signal?: AbortSignal | undefined; timeoutMs?: number | undefined }) {
    request.signal?.throwIfAborted();
    this.#clock = clock;
    this.#caller = request.signal;
    if (this.#caller) {
      // One listener a request, removed at its end; Node would take more than ten for a leak.
      setMaxListeners(0, this.#caller);
      this.#caller.addEventListener('abort', this.#give);
    }
    this.#timeoutMs = request.timeoutMs ?? 30_000;
    this.#cancel = this.#arm();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Something was heard: the silence begins anew. */
  heard(): void {
    this.#cancel();
    this.#cancel = this.#arm();
  }

  /** No more limit; the caller's signal stays. */
  lift(): void {
    this.#cancel();
  }

  end(): void {
    this.#cancel();
    this.#caller?.removeEventListener('abort', this.#give);
  }

  #arm(): () => void {
    return this.#clock.after(this.#timeoutMs, () => {
      this.#timedOut = true;
      this.#controller.abort();
    });
  }

  /** What to throw for an error seen under this deadline. */
  explain(request: string, error: unknown): Error {
    if (error instanceof ApiError) return error;
    if (this.#caller?.aborted) return this.#caller.reason as Error;
    if (this.#timedOut) {
      const message = `nothing heard for ${this.#timeoutMs} ms`;
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
