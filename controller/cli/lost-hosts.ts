import type { Clock } from '../clock.ts';
import type { HostState } from '../hosts/host.ts';
import { duration } from '../reconcile/status.ts';

export interface LostHostsOptions {
  hosts: { state(name: string): HostState | undefined };
  clock: Clock;
  /** How long a host may be out of reach before it counts as lost, in milliseconds. */
  grace: number;
  /** Takes a line for people: a connection was lost, is back, or is given up. */
  say: (line: string) => void;
  /** A host counts as lost. */
  onLost: () => void;
}

interface Absence {
  /** When the connection was lost, in milliseconds since the epoch. */
  since: number;
  cancel: () => void;
  /** It has been for too long. */
  over: boolean;
}

/** Follows which hosts are out of reach, says so once for each absence, and knows which have been for too long. */
export class LostHosts {
  readonly #options: LostHostsOptions;
  readonly #absent = new Map<string, Absence>();
  readonly #seen = new Set<string>();
  #grace: number;

  constructor(options: LostHostsOptions) {
    this.#options = options;
    this.#grace = options.grace;
  }

  /** Hears that something about a host has changed. */
  changed(name: string): void {
    const state = this.#options.hosts.state(name);
    if (state?.kind === 'down') this.#missed(name, state);
    else this.#back(name);
  }

  /** Whether a host has been out of reach for longer than the grace period. */
  has(name: string): boolean {
    return this.#absent.get(name)?.over ?? false;
  }

  /** Waits no longer than this for a host from now on: somebody wants to leave. In milliseconds. */
  hurry(grace: number): void {
    this.#grace = Math.min(this.#grace, grace);
    for (const [name, absence] of this.#absent) {
      absence.cancel();
      this.#await(name, absence);
    }
  }

  close(): void {
    for (const { cancel } of this.#absent.values()) cancel();
    this.#absent.clear();
  }

  #missed(name: string, { since, message }: Extract<HostState, { kind: 'down' }>): void {
    if (this.#absent.has(name)) return;
    const absence: Absence = { since, cancel: () => undefined, over: false };
    this.#absent.set(name, absence);
    const what = this.#seen.has(name) ? 'connection lost' : 'not connected';
    this.#options.say(
      `host ${name}: ${what} (${message}); trying again until ${clockTime(since + this.#grace)}`,
    );
    this.#await(name, absence);
  }

  #await(name: string, absence: Absence): void {
    const { clock, say, onLost } = this.#options;
    const wait = absence.since + this.#grace - clock.now();
    absence.cancel = clock.after(wait, () => {
      if (!absence.over)
        say(`host ${name}: given up, after ${duration(clock.now() - absence.since)} out of reach`);
      absence.over = true;
      onLost();
    });
  }

  #back(name: string): void {
    this.#seen.add(name);
    const absence = this.#absent.get(name);
    if (!absence) return;
    absence.cancel();
    this.#absent.delete(name);
    const { clock, say } = this.#options;
    say(`host ${name}: connected again, after ${duration(clock.now() - absence.since)}`);
  }
}

/** `11:57:12`, where the reader is. */
function clockTime(at: number): string {
  return new Date(at).toTimeString().slice(0, 8);
}
