import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { printable } from '../printable.ts';
import { isReaderGone, programEnd } from './program-end.ts';

/** Bytes that may wait for a slow reader before the writer waits, too. */
const roomForReader = 8 * 2 ** 20;
/** How long a reader that takes nothing holds up a program that was asked to end, in milliseconds. */
const patience = 2_000;

/** One of the two outputs. What is written after it has failed is dropped. */
class Output {
  readonly #name: 'stdout' | 'stderr';
  readonly #failed = new AbortController();
  #onFailed: (error: NodeJS.ErrnoException) => void = () => undefined;
  /** Resolves when the newest piece is with the reader. */
  #written: Promise<void> = Promise.resolve();

  constructor(name: 'stdout' | 'stderr') {
    this.#name = name;
  }

  get #stream(): NodeJS.WriteStream {
    return process[this.#name];
  }

  /** Hears of the first failure; without this, it is the end of the process. */
  watch(onFailed: (error: NodeJS.ErrnoException) => void): void {
    this.#onFailed = onFailed;
    this.#stream.on('error', (error: Error) => this.#fail(error));
  }

  write(chunk: string | Uint8Array): void {
    if (this.#failed.signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#written = promise;
    this.#stream.write(chunk, (error) => {
      if (error) this.#fail(error);
      resolve(undefined);
    });
  }

  /** Resolves when there is room for more, or never will be. Never rejects. */
  async room(): Promise<void> {
    if (this.#stream.writableLength > roomForReader) await this.flush();
  }

  /** Resolves when all that was written is with the reader, or never will be. Never rejects. */
  async flush(): Promise<void> {
    if (!this.#failed.signal.aborted) await this.#orGivenUp(this.#written);
  }

  #fail(error: NodeJS.ErrnoException): void {
    if (this.#failed.signal.aborted) return;
    this.#failed.abort();
    this.#onFailed(error);
  }

  /** A reader may take its time, but not once the program was asked to end. */
  async #orGivenUp(taken: Promise<unknown>): Promise<void> {
    const over = new AbortController();
    const stuck = stalled(over.signal).then(
      () => this.#failed.abort(),
      () => undefined,
    );
    await Promise.race([taken, stuck]);
    over.abort();
  }
}

/** Resolves some time after the program was asked to end. Rejects when `signal` is aborted before. */
async function stalled(signal: AbortSignal): Promise<void> {
  const { asked } = programEnd;
  if (!asked.aborted) await once(asked, 'abort', { signal });
  await delay(patience, undefined, { signal });
}

const stdout = new Output('stdout');
const stderr = new Output('stderr');

/**
 * Writes to standard output. Resolves when there is room for more; who writes much waits for that. Never rejects: an
 * output that fails asks the program to end, which is no business of the writer.
 */
export function out(chunk: string | Uint8Array): Promise<void> {
  stdout.write(chunk);
  return stdout.room();
}

/** Resolves when standard output has room for more, as {@link out} does. */
export function roomInOutput(): Promise<void> {
  return stdout.room();
}

/** Writes a line about what goes on to standard error. Nothing in it steers a terminal. */
export function note(line: string): void {
  stderr.write(`${printable(line)}\n`);
}

/**
 * From now on a standard output that fails asks the program to end, and a standard error that fails is done without: the
 * exit code and standard output still say what there is to say. Once, by the main program.
 */
export function watchOutputs(): void {
  stderr.watch(() => undefined);
  stdout.watch(({ code = 'EIO', message }) => {
    if (!isReaderGone(code)) note(`cijob: standard output cannot be written: ${message}`);
    programEnd.ask({ kind: 'output', code });
  });
}

/** Resolves when all that was written is where it should be. */
export async function flushOutputs(): Promise<void> {
  await stdout.flush();
  await stderr.flush();
}
