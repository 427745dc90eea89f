import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

export interface DaemonSpec {
  /** How messages call it: "kube-apiserver". */
  name: string;
  file: string;
  args: readonly string[];
  /** Added to this process's own environment. */
  env?: Record<string, string>;
  /** Both outputs are appended here. */
  logFile: string;
  /** Asked again and again until it says true; throwing means "not yet", and the last reason is shown on failure. */
  isReady: () => Promise<boolean>;
  /** Default: 60 s, for machines with much else to do. */
  readyTimeoutMs?: number;
}

/**
 * A program that runs in the foreground of its own process group (Ctrl-C in the terminal does not reach it: it is taken
 * down in order, by its owner) until it is stopped. It can be killed and started again, as the chaos tests do.
 */
export class Daemon implements AsyncDisposable {
  readonly spec: DaemonSpec;
  #child: ChildProcess | undefined;
  #exitCode: number | null = null;

  private constructor(spec: DaemonSpec) {
    this.spec = spec;
  }

  /** Starts the daemon and waits until it is ready. On failure it is stopped, and its last log lines are the error. */
  static async start(spec: DaemonSpec): Promise<Daemon> {
    const daemon = new Daemon(spec);
    await daemon.start();
    return daemon;
  }

  /** The process id of the running daemon. Throws when it is not running. */
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`${this.spec.name} is not running`);
    return pid;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  /** How it ended last; null while it never has, or when a signal ended it. */
  get exitCode(): number | null {
    return this.#exitCode;
  }

  /** Starts it (again) with the same arguments. Nothing happens when it is running. */
  async start(): Promise<void> {
    if (this.#child) return;
    const { name, file, args, env, logFile } = this.spec;
    const log = await open(logFile, 'a');
    let startError: Error | undefined;
    const child = spawn(file, args, {
      detached: true,
      env: { ...process.env, ...env },
      stdio: ['ignore', log.fd, log.fd],
    });
    await log.close();
    this.#child = child;
    child.once('error', (error) => {
      startError = error;
      this.#child = undefined;
    });
    child.once('exit', (code) => {
      this.#exitCode = code;
      if (this.#child === child) this.#child = undefined;
    });

    const deadline = performance.now() + (this.spec.readyTimeoutMs ?? 60_000);
    let notReady: unknown;
    while (performance.now() < deadline) {
      if (startError) throw new Error(`${name} could not be started: ${startError.message}`);
      if (!this.running) {
        const how = child.signalCode ?? `exit code ${child.exitCode ?? 'unknown'}`;
        throw new Error(`${name} ended before it was ready (${how}). It said:\n${this.lastLines()}`);
      }
      try {
        if (await this.spec.isReady()) return;
      } catch (error) {
        notReady = error;
      }
      await delay(25);
    }
    const why = notReady instanceof Error ? ` (${notReady.message})` : '';
    const said = this.lastLines();
    await this.kill9();
    throw new Error(`${name} was not ready in time${why}. It said:\n${said}`);
  }

  /** Asks it to end, and after `graceMs` ends it. Nothing happens when it is not running. */
  async stop({
    signal,
    graceMs = 20_000,
  }: { signal?: NodeJS.Signals; graceMs?: number } = {}): Promise<void> {
    const child = this.#child;
    if (!child) return;
    const gone = exited(child);
    child.kill(signal ?? 'SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
    await gone;
    clearTimeout(timer);
  }

  /** What a crash looks like: SIGKILL, and gone. */
  async kill9(): Promise<void> {
    await this.stop({ signal: 'SIGKILL' });
  }

  /** The end of its log, for messages. */
  lastLines(count = 20): string {
    try {
      return readFileSync(this.spec.logFile, 'utf8').trimEnd().split('\n').slice(-count).join('\n');
    } catch {
      return '(no log)';
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once('exit', () => resolve()));
}
