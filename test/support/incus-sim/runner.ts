import type { Clock } from '../../../controller/clock.ts';
import type { GuestFiles } from './guest-files.ts';
import { type JobScript, type Launch, logPath, resultPath } from './guest-script.ts';

/** What `result.json` holds when it is truthful. */
interface Result {
  schema_version: 1;
  status: 'passed' | 'failed';
  exit_code: number;
  started_at: string;
  finished_at: string;
  message: string;
  timed_out: boolean;
  bootstrap_error?: string;
}

/** Exit code of a command stopped for its time, as timeout(1) has it. */
const timedOutCode = 124;
/** Exit code of a runner that could not begin or go on. */
const bootstrapCode = 2;

/** What the runner asks of the machine it runs in. */
export interface Machine {
  files: GuestFiles;
  clock: Clock;
  mounts: readonly string[];
  job: (launch: Launch) => JobScript;
  reboot(): void;
  poweroff(): void;
}

/** What a test asks in the end. It outlives the instance. */
export interface RunnerCounts {
  /** How often the job's command was really run. More than 1 is a broken promise. */
  runs: number;
  /** How often the runner was launched, attaching included. */
  launches: number;
}

/**
 * The guest's runner as the contract wants it: starts the command at most once in an instance; a further launch
 * attaches, waits and returns the same code; the part that runs the command outlives whatever launched it.
 */
export class Runner {
  readonly counts: RunnerCounts = { runs: 0, launches: 0 };
  readonly #machine: Machine;
  #begun = false;
  #alive = false;
  #halted = false;
  #code: number | undefined;
  #fronts = new Set<(code: number) => void>();
  #timers: (() => void)[] = [];
  #startedAt = '';

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** True while the command runs. */
  get running(): boolean {
    return this.#alive;
  }

  /** Starts or attaches. `onExit` is called once, with the code that the front returns. Returns how to kill the front. */
  launch(launch: Launch, onExit: (code: number) => void): () => void {
    this.counts.launches += 1;
    this.#fronts.add(onExit);
    if (this.#code !== undefined) this.#exit(this.#code);
    else if (!this.#begun) this.#begin(launch);
    else if (!this.#alive) {
      // Its supervisor is gone, and the command is not run a second time.
      const what = this.#halted ? 'the guest was restarted' : 'the runner was killed';
      this.#finish(bootstrapCode, {}, `${what} before the command ended`);
    }
    return () => this.#fronts.delete(onExit);
  }

  /** The machine went down: everything in it is gone, the files stay. */
  halt(): void {
    this.#fronts.clear();
    this.#clearTimers();
    this.#alive = false;
    this.#halted = true;
  }

  #begin(launch: Launch): void {
    this.#begun = true;
    this.#startedAt = this.#now();
    const script = this.#machine.job(launch);
    const missing = launch.expectMounts.find((path) => !this.#machine.mounts.includes(path));
    const error = script.bootstrapError ?? (missing && `${missing} is not a mount point`);
    if (error !== undefined) {
      this.#finish(bootstrapCode, script, error);
      return;
    }
    this.counts.runs += 1;
    this.#alive = true;
    const { until, runMs = until ? Infinity : 1, log = '' } = script;
    this.#machine.files.write(logPath, '');
    for (const { atMs, text } of typeof log === 'string' ? [{ atMs: 0, text: log }] : log)
      if (atMs === 0) this.#machine.files.append(logPath, text);
      else this.#after(atMs, () => this.#machine.files.append(logPath, text));
    const limit = launch.timeoutSeconds * 1000;
    if (runMs > limit) this.#after(limit, () => this.#finish(timedOutCode, script, undefined, true));
    else this.#after(runMs, () => this.#end(script));
    void until?.then(() => {
      if (this.#alive) this.#end(script);
    });
  }

  #end(script: JobScript): void {
    switch (script.then) {
      case 'reboot': {
        this.#machine.reboot();
        return;
      }
      case 'poweroff': {
        this.#machine.poweroff();
        return;
      }
      case 'vanish':
        // Killed, with all that was attached to it, and nothing written.
        this.#alive = false;
        {
          this.#exit(137);
          return;
        }
      case undefined: {
        this.#finish(script.exitCode ?? 0, script);
        return;
      }
    }
  }

  #finish(code: number, script: JobScript, bootstrapError?: string, timedOut = false): void {
    this.#alive = false;
    this.#code = code;
    this.#clearTimers();
    const result: Result = {
      schema_version: 1,
      status: code === 0 ? 'passed' : 'failed',
      exit_code: code,
      started_at: this.#startedAt,
      finished_at: this.#now(),
      message: bootstrapError ? `the command was not started: ${bootstrapError}` : ended(code, timedOut),
      timed_out: timedOut,
      ...(bootstrapError === undefined ? {} : { bootstrap_error: bootstrapError }),
    };
    const { resultEntry, logEntry } = script;
    if (logEntry) this.#machine.files.set(logPath, logEntry);
    if (resultEntry === undefined) this.#machine.files.write(resultPath, `${JSON.stringify(result)}\n`);
    else if (resultEntry !== 'missing') this.#machine.files.set(resultPath, resultEntry);
    this.#exit(code);
  }

  #exit(code: number): void {
    const fronts = [...this.#fronts];
    this.#fronts.clear();
    for (const front of fronts) front(code);
  }

  #after(milliseconds: number, run: () => void): void {
    this.#timers.push(this.#machine.clock.after(milliseconds, run));
  }

  #clearTimers(): void {
    for (const cancel of this.#timers) cancel();
    this.#timers = [];
  }

  #now(): string {
    return new Date(this.#machine.clock.now()).toISOString();
  }
}

function ended(code: number, timedOut: boolean): string {
  if (timedOut) return 'test command timed out';
  return code === 0 ? 'test passed' : `test command exited with ${code}`;
}
