import type { Clock } from '../../../controller/clock.ts';
import { GuestFiles } from './guest-files.ts';
import { type GuestScript, type Launch, runnerPath } from './guest-script.ts';
import { type NotStarted, plainCommand, type Step } from './guest-shell.ts';
import { Runner } from './runner.ts';

/** A command to run in a guest, as `POST …/exec` asks for it. */
export interface ExecRequest {
  command: readonly string[];
  environment: Readonly<Record<string, string>>;
  user?: number;
  cwd?: string;
  /** Size of its terminal, as it is now. */
  terminal?: Readonly<{ width: number; height: number }> | undefined;
}

/** What the guest tells the machine it runs on. */
export interface GuestHost {
  ready(): void;
  reboot(): void;
  poweroff(): void;
}

/** A command that runs. `kill` ends it, with 137 if nothing else is said, and calls `onExit`. */
export interface Exec {
  output: string;
  kill(code?: number): void;
  input(text: string): void;
  endInput(): void;
}

/** Standard input of a command. */
interface Input {
  text: string;
  ended: boolean;
  changed: () => void;
}

/** What runs inside one simulated instance. Files and what the runner promised outlive a reboot; processes do not. */
export class Guest {
  readonly files = new GuestFiles();
  readonly runner: Runner;
  /** How often it booted. */
  boots = 0;
  /** Booted: in a VM, the agent answers. */
  up = false;
  readonly #clock: Clock;
  readonly #script: GuestScript;
  readonly #host: GuestHost;
  readonly #execs = new Set<Exec>();
  #cancelBoot: () => void = () => undefined;

  constructor(script: GuestScript, mounts: readonly string[], clock: Clock, host: GuestHost) {
    this.#clock = clock;
    this.#script = script;
    this.#host = host;
    for (const [path, entry] of Object.entries(script.files ?? {})) this.files.set(path, entry);
    const { job = {} } = script;
    this.runner = new Runner({
      files: this.files,
      clock,
      mounts,
      job: typeof job === 'function' ? job : () => job,
      reboot: () => host.reboot(),
      poweroff: () => host.poweroff(),
    });
  }

  boot(): void {
    this.boots += 1;
    const { bootMs = 0, announcesReady = false } = this.#script;
    const done = () => {
      this.up = true;
      if (announcesReady) this.#host.ready();
    };
    if (bootMs === 0) done();
    else if (bootMs !== Infinity) this.#cancelBoot = this.#clock.after(bootMs, done);
  }

  /** Power off, at once. Commands that ran end with 137. */
  halt(): void {
    this.#cancelBoot();
    this.up = false;
    this.killExecs();
    this.runner.halt();
  }

  /** Kills what execs have started (not what has detached itself from them). */
  killExecs(): void {
    for (const exec of [...this.#execs]) exec.kill();
  }

  /** Starts a command; `onExit` is called once with its code. */
  exec(
    request: ExecRequest,
    onExit: (code: number, exec: Exec) => void,
    onPrint: (text: string) => void = () => undefined,
  ): Exec | NotStarted {
    const launch = this.#asLaunch(request);
    if (launch && this.#script.hasRunner === false) return { code: 127, error: 'Command not found' };
    const steps = launch ? [] : plainCommand(request.command);
    if ('code' in steps) return steps;
    let cancel: () => void = () => undefined;
    const exit = (code: number) => {
      if (this.#execs.delete(exec)) onExit(code, exec);
    };
    const print = (text: string) => {
      exec.output += text;
      onPrint(text);
    };
    const input: Input = { text: '', ended: false, changed: () => undefined };
    const exec: Exec = {
      output: '',
      kill: (code = 137) => {
        cancel();
        exit(code);
      },
      input(text) {
        input.text += text;
        input.changed();
      },
      endInput() {
        input.ended = true;
        input.changed();
      },
    };
    this.#execs.add(exec);
    // Not before the caller has the exec in hand.
    queueMicrotask(() => {
      if (!this.#execs.has(exec)) return;
      if (launch) cancel = this.runner.launch(launch, exit);
      else cancel = this.#walk(steps, { request, input, print, exit });
    });
    return exec;
  }

  /** A launch of the runner. The variables of the job are in a file, which is gone then. */
  #asLaunch(request: ExecRequest): Launch | undefined {
    const launch = asLaunch(request);
    const path = request.environment['PIKACI_INCUS_ENVIRONMENT_FILE'];
    const content = launch && path !== undefined ? this.files.text(path) : undefined;
    if (!launch || path === undefined || content === undefined) return launch;
    this.files.remove(path);
    const pairs = content.split('\0').filter((pair) => pair !== '');
    const split = pairs.map((pair) => /^([^=]*)=([^]*)$/.exec(pair)?.slice(1) ?? []);
    return { ...launch, environment: { ...launch.environment, ...(Object.fromEntries(split) as object) } };
  }

  #walk(steps: readonly Step[], process: Process): () => void {
    const { request, input, print, exit } = process;
    for (const [index, step] of steps.entries())
      switch (step.do) {
        case 'exit':
          exit(step.code);
          return () => undefined;
        case 'sleep': {
          let cancel = this.#clock.after(step.milliseconds, () => {
            cancel = this.#walk(steps.slice(index + 1), process);
          });
          return () => cancel();
        }
        case 'print':
          print(step.text);
          break;
        case 'tell':
          print(`${tell(step.what, request)}\n`);
          break;
        case 'copy':
        case 'sizes': {
          let cancel = (): void => {
            input.changed = () => undefined;
          };
          const copy = () => {
            const { text } = input;
            input.text = '';
            const lines = text.split('\n').length - 1;
            if (text !== '') print(step.do === 'copy' ? text : `${tell('size', request)}\n`.repeat(lines));
            if (!input.ended) return;
            cancel();
            cancel = this.#walk(steps.slice(index + 1), process);
          };
          input.changed = copy;
          copy();
          return () => cancel();
        }
        case 'follow':
          return this.#follow(step.path, step.from, print);
        case 'files':
          step.apply(this.files);
          break;
        case 'announce':
          this.#host.ready();
          break;
        case 'reboot':
        case 'poweroff':
          exit(0);
          this.#host[step.do]();
          return () => undefined;
      }
    exit(0);
    return () => undefined;
  }

  #follow(path: string, from: number, print: (text: string) => void): () => void {
    let printed = from;
    const look = () => {
      const bytes = Buffer.from(this.files.text(path) ?? '');
      if (bytes.length > printed) print(bytes.subarray(printed).toString());
      printed = Math.max(printed, bytes.length);
    };
    look();
    return this.files.watch(look);
  }
}

/** A command with all that it reads, and where it prints and ends. */
interface Process {
  request: ExecRequest;
  input: Input;
  print: (text: string) => void;
  exit: (code: number) => void;
}

function tell(what: 'user' | 'directory' | 'size', { user, cwd, terminal }: ExecRequest): string {
  switch (what) {
    case 'user':
      return String(user ?? 0);
    case 'directory':
      return cwd ?? '/root';
    case 'size':
      return `${terminal?.height ?? 0} ${terminal?.width ?? 0}`;
  }
}

/** Recognises the launch of the runner: `env PIKACI_…=… /run/current-system/sw/bin/pikaci-incus-run`. */
function asLaunch({ command, environment }: ExecRequest): Launch | undefined {
  if (command.at(-1) !== runnerPath || command[0] !== 'env') return undefined;
  const set = new Map(
    command.slice(1, -1).map((word) => {
      const at = word.indexOf('=');
      return [word.slice(0, at), word.slice(at + 1)] as const;
    }),
  );
  const text = (name: string) => set.get(name) ?? environment[name] ?? '';
  return {
    command: text('PIKACI_INCUS_GUEST_COMMAND'),
    timeoutSeconds: Number(text('PIKACI_INCUS_TIMEOUT_SECS') || Infinity),
    runAsRoot: text('PIKACI_INCUS_RUN_AS_ROOT') === '1',
    expectMounts: text('PIKACI_INCUS_EXPECT_MOUNTS')
      .split(':')
      .filter((path) => path !== ''),
    environment,
  };
}
