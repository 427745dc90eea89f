import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, type WriteStream } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const main = join(import.meta.dirname, '../../controller/main.ts');

export interface MortalOptions {
  kubeconfig: string;
  namespace: string;
  logFile: string;
  /** Called before each start. */
  beforeStart: () => Promise<void>;
}

/** When to kill: so long after the start, or, once it reconciles, after so many lines of log or so long. */
export type Moment = { afterMs: number } | { afterLines: number; orAfterMs: number };

/** One that does not even come to reconcile within this time, for want of an API server, is killed as well. */
const longestStart = 15_000;

/** The real controller, started again and again, and killed at some moment each time. */
export class MortalController {
  /** How often it was killed with SIGKILL, and how often it ended by itself (its lease was lost). */
  kills = 0;
  exits = 0;
  readonly #options: MortalOptions;
  readonly #log: WriteStream;

  constructor(options: MortalOptions) {
    this.#options = options;
    this.#log = createWriteStream(options.logFile, { flags: 'a' });
  }

  /** One life: from its start to its death. */
  async live(moment: Moment): Promise<void> {
    await this.#options.beforeStart();
    const child = this.#spawn();
    const gone = once(child, 'exit');
    await Promise.race([gone, this.#moment(child, moment)]);
    if (child.exitCode !== null || child.signalCode !== null) {
      this.exits += 1;
      return;
    }
    child.kill('SIGKILL');
    await gone;
    this.kills += 1;
  }

  /** A life in peace: until `done` resolves. One that loses its lease is started again, as Kubernetes does. */
  async liveUntil(done: Promise<unknown>): Promise<void> {
    const state = { done: false };
    void done.finally(() => (state.done = true));
    while (!state.done) {
      await this.#options.beforeStart();
      const child = this.#spawn();
      const gone = once(child, 'exit');
      await Promise.race([gone, done]);
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      await gone;
    }
  }

  close(): void {
    this.#log.end();
  }

  #spawn(): ChildProcess {
    const { kubeconfig, namespace } = this.#options;
    const args = ['--kubeconfig', kubeconfig, '--namespace', namespace, '--log-level', 'trace'];
    const child = spawn(process.execPath, [main, 'controller', ...args, '--metrics-address', '127.0.0.1:0'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.pipe(this.#log, { end: false });
    return child;
  }

  async #moment(child: ChildProcess, moment: Moment): Promise<void> {
    if ('afterMs' in moment) {
      await delay(moment.afterMs);
      return;
    }
    const { promise: passed, resolve } = Promise.withResolvers<undefined>();
    let left = moment.afterLines;
    let working = false;
    // The log is what it writes to standard error.
    child.stderr?.on('data', (chunk: Buffer) => {
      const text = chunk.toString();
      if (!working && text.includes('"reconciling"')) {
        working = true;
        void delay(moment.orAfterMs).then(() => resolve(undefined));
      }
      if (working) left -= text.split('\n').length - 1;
      if (left <= 0) resolve(undefined);
    });
    await Promise.race([passed, delay(longestStart)]);
  }
}

/** A moment in the controller's life: while it starts, while it works, or while it waits. */
export function someMoment(): Moment {
  return Math.random() < 0.25
    ? { afterMs: 300 + Math.random() * 2200 }
    : { afterLines: 1 + Math.floor(Math.random() * 60), orAfterMs: Math.random() * 4000 };
}
