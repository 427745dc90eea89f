/** What becomes of a job's command in a guest. */
export type Fate =
  | { kind: 'exits'; code: number }
  | { kind: 'times out' }
  | { kind: 'never ends' }
  | { kind: 'cannot begin' }
  | { kind: 'runner vanishes' }
  | { kind: 'reboots' }
  | { kind: 'powers off' }
  | { kind: 'garbles its result' }
  | { kind: 'never boots' }
  | { kind: 'does not start' };

/** Whether an attempt with this fate is the infrastructure's fault, so that another may follow. */
export function isInfrastructure({ kind }: Fate): boolean {
  return kind !== 'exits' && kind !== 'times out' && kind !== 'never ends';
}

/** What the world asks of the machine that a guest runs on. */
export interface Machine {
  reboot(): void;
  poweroff(): void;
}

/** The runner inside a guest, as the contract wants it: it runs the command at most once, whoever asks how often. */
export class ModelGuest {
  readonly fate: Fate;
  /** How often the command was really started. */
  runs = 0;
  /** How the command really ended. */
  ended: 'passed' | 'failed' | 'timed out' | undefined;
  result: string | undefined;
  runner: 'none' | 'running' | 'killed' | 'exited' = 'none';
  #code = 0;
  #fronts = new Set<(code: number) => void>();

  constructor(fate: Fate) {
    this.fate = fate;
  }

  /** Starts the runner, or attaches to it. */
  launch(onExit: (code: number) => void): void {
    this.#fronts.add(onExit);
    if (this.runner === 'none') {
      if (this.fate.kind === 'cannot begin') this.#bootstrapError('a mount is missing');
      else {
        this.runner = 'running';
        this.runs += 1;
      }
    } else if (this.runner === 'killed')
      this.#bootstrapError('the guest was restarted, or the runner killed');
    else if (this.runner === 'exited') this.#exit(this.#code);
  }

  /** The command comes to its end, if it has one. */
  finish(machine: Machine): void {
    const { fate } = this;
    switch (fate.kind) {
      case 'exits':
        this.ended = fate.code === 0 ? 'passed' : 'failed';
        this.#write({ status: this.ended, exit_code: fate.code });
        this.#exit(fate.code);
        return;
      case 'times out':
        this.ended = 'timed out';
        this.#write({ status: 'failed', exit_code: 124, timed_out: true });
        this.#exit(124);
        return;
      case 'garbles its result':
        this.result = '{"schema_version":1,"status":"pas';
        this.#exit(0);
        return;
      case 'runner vanishes':
        this.runner = 'killed';
        this.#tell(137);
        return;
      case 'reboots':
        machine.reboot();
        return;
      case 'powers off':
        machine.poweroff();
        return;
      case 'never ends':
      case 'cannot begin':
      case 'never boots':
      case 'does not start':
        return;
    }
  }

  /** The machine goes down, or is rebooted: processes are gone, files stay. */
  halt(): void {
    if (this.runner === 'running') this.runner = 'killed';
    this.#tell(137);
  }

  /** Those who launched are gone; the runner goes on. */
  detach(): void {
    this.#fronts.clear();
  }

  #bootstrapError(why: string): void {
    this.#write({ status: 'failed', exit_code: 2, bootstrap_error: why });
    this.#exit(2);
  }

  #write(result: object): void {
    this.result = JSON.stringify({ schema_version: 1, message: 'the model says so', ...result });
  }

  #exit(code: number): void {
    this.runner = 'exited';
    this.#code = code;
    this.#tell(code);
  }

  #tell(code: number): void {
    const fronts = [...this.#fronts];
    this.#fronts.clear();
    for (const front of fronts) front(code);
  }
}
