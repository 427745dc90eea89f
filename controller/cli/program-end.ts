import { constants } from 'node:os';
import { exitCodes } from '../standalone/progress.ts';

/** Signals that ask the program to end: of the keyboard, of `kill` and service managers, of a terminal that is closed. */
const endSignals = ['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP'] as const;
export type EndSignal = (typeof endSignals)[number];

/** What asks the program to end before its work is done. */
export type EndCause =
  | { kind: 'signal'; signal: EndSignal }
  /** Standard output takes nothing more. `code` is the system's: EPIPE when its reader has gone, ENOSPC, … */
  | { kind: 'output'; code: string };

/** Codes by which the system says that the reader of an output has gone: a closed pipe, a closed terminal. */
const readerGone: ReadonlySet<string> = new Set(['EPIPE', 'EIO', 'ECONNRESET']);

/** Whether an output failed because nobody reads it any more. That is no error: `head` has seen enough. */
export function isReaderGone(code: string): boolean {
  return readerGone.has(code);
}

/** The exit code of a program that ended because of this: the shell's own for a signal, SIGPIPE among them. */
export function exitCodeFor(cause: EndCause): number {
  if (cause.kind === 'signal') return 128 + constants.signals[cause.signal];
  return isReaderGone(cause.code) ? exitCodes.readerGone : exitCodes.output;
}

/**
 * The one place where the program hears that it should end. A command that has something to put in order first takes
 * over; every other one ends at once.
 */
class ProgramEnd {
  readonly #asked = new AbortController();
  #takenOver: ((cause: EndCause) => void) | undefined;

  /** Aborted as soon as the program was asked to end. */
  get asked(): AbortSignal {
    return this.#asked.signal;
  }

  /** Listens to signals from now on. Once, by the main program. */
  listen(): void {
    for (const signal of endSignals) process.on(signal, () => this.ask({ kind: 'signal', signal }));
  }

  /**
   * From now on `handle` hears of each cause, in place of the end at once: it puts things in order, and may call
   * {@link leave}. Returns a function that gives that back.
   */
  takeOver(handle: (cause: EndCause) => void): () => void {
    this.#takenOver = handle;
    return () => {
      this.#takenOver = undefined;
    };
  }

  ask(cause: EndCause): void {
    this.#asked.abort();
    if (this.#takenOver) this.#takenOver(cause);
    else leave(cause);
  }
}

export const programEnd = new ProgramEnd();

/** Ends the program now. After a signal by that very signal, so that a calling shell knows. */
export function leave(cause: EndCause): never {
  if (cause.kind === 'signal') {
    process.removeAllListeners(cause.signal);
    process.kill(process.pid, cause.signal);
  }
  // The first process of a container does not die by a signal that it does not handle.
  process.exit(exitCodeFor(cause));
}
