import { isDeepStrictEqual } from 'node:util';
import PQueue from 'p-queue';
import type { IncusHostSpec } from '../api/incushost.ts';
import { sleep, type Clock } from '../clock.ts';
import type { Command, Verb } from '../incus/commands.ts';
import { IncusError } from '../incus/errors.ts';
import { Inventory } from '../incus/inventory.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import type { SeenDrift } from '../incus/drift.ts';
import { SshError } from '../ssh/errors.ts';
import type { Artifacts } from './artifacts.ts';
import type { HostFacts } from './host-facts.ts';
import { openLink, type Link, type ReadKey } from './link.ts';
import type { LiveLogs } from './live-logs.ts';
import { perform } from './perform.ts';
import { Session } from './session.ts';
import { openShell, type OnOutput, type Shell, type ShellCommand } from './shell.ts';

export type InstanceType = 'Container' | 'VirtualMachine';

/** What is known of a host. While it is down, what was last seen of its instances is unknown, not gone. */
export type HostState =
  | {
      kind: 'up';
      since: number;
      version: string;
      instanceTypes: readonly InstanceType[];
      /** Configuration of the Incus project. */
      project: Readonly<Record<string, string>>;
      /** What else it is. Not there while it has not been asked. */
      facts?: HostFacts;
    }
  | { kind: 'down'; since: number; reason: string; message: string };

/** What a host tells the rest of the program. */
export interface HostEvents {
  /** An instance changed, or, when undefined, the host or all of its instances. */
  changed(host: string, instance: string | undefined): void;
  /** Somebody else did something to an instance of ours. */
  drift(host: string, instance: string, kind: Drift): void;
  command(host: string, verb: Verb, outcome: CommandOutcome['kind'], seconds: number): void;
  eventLag(host: string, seconds: number): void;
  request(host: string, method: string, path: string): void;
}

/** What was done to an instance behind our back. */
export type Drift = 'Restarted' | 'Paused' | 'Deleted' | SeenDrift;

const drifts: Readonly<Record<string, Drift>> = {
  'instance-stopped': 'Stopped',
  'instance-shutdown': 'Stopped',
  'instance-restarted': 'Restarted',
  'instance-paused': 'Paused',
  'instance-deleted': 'Deleted',
};

export interface HostOptions {
  name: string;
  spec: IncusHostSpec;
  controllerId: string;
  readKey: ReadKey;
  clock: Clock;
  events: HostEvents;
  /** Labels of a namespace, as they are now. */
  namespaceLabels: (namespace: string) => Readonly<Record<string, string>>;
  logs?: LiveLogs | undefined;
  artifacts?: Artifacts | undefined;
}

const shortestBackoff = 500;
const longestBackoff = 30_000;

/**
 * One Incus server: keeps a session open for as long as it lives, reconnecting with backoff, and carries out
 * commands on it.
 */
export class Host {
  readonly name: string;
  readonly inventory = new Inventory();
  #spec: IncusHostSpec;
  #state: HostState;
  #session: Session | undefined;
  #observedAt = 0;
  readonly #options: HostOptions;
  readonly #stop = new AbortController();
  /** Instances that a command of ours is changing. */
  readonly #changing = new Set<string>();
  /** Shells over the connection there is. */
  readonly #shells = new Set<Shell>();
  readonly #starts: PQueue;
  readonly #done: Promise<void>;

  constructor(options: HostOptions) {
    this.name = options.name;
    this.#options = options;
    this.#spec = options.spec;
    this.#state = {
      kind: 'down',
      since: options.clock.now(),
      reason: 'Connecting',
      message: 'the first connection is being made',
    };
    this.#starts = new PQueue({ concurrency: options.spec.maxConcurrentStarts });
    this.#done = this.#live();
  }

  get spec(): IncusHostSpec {
    return this.#spec;
  }

  get state(): HostState {
    return this.#state;
  }

  /** When the inventory was last known to be current, in milliseconds since the epoch; 0 for never. */
  get observedAt(): number {
    return this.#session ? this.#options.clock.now() : this.#observedAt;
  }

  /** Takes a changed spec. Returns false if only a new connection can carry it. */
  update(spec: IncusHostSpec): boolean {
    const same = (key: 'connection' | 'project') =>
      JSON.stringify(spec[key]) === JSON.stringify(this.#spec[key]);
    if (!same('connection') || !same('project')) return false;
    this.#spec = spec;
    this.#starts.concurrency = spec.maxConcurrentStarts;
    return true;
  }

  /**
   * Carries out one command. Never rejects. Creations wait for each other as `maxConcurrentStarts` says.
   *
   * @param signal ends a collect early, with what was read so far
   */
  async perform(command: Command, signal?: AbortSignal): Promise<CommandOutcome> {
    const started = this.#options.clock.now();
    const { verb, instance } = command;
    const changes = verb === 'create' || verb === 'stop' || verb === 'delete';
    if (changes) this.#changing.add(instance);
    const outcome =
      verb === 'create'
        ? await this.#starts.add(() => this.#attempt(command))
        : await this.#attempt(command, signal);
    if (changes) this.#changing.delete(instance);
    const seconds = (this.#options.clock.now() - started) / 1000;
    this.#options.events.command(this.name, verb, outcome.kind, seconds);
    return outcome;
  }

  /** Whether a command of ours is making, stopping or deleting an instance. */
  isChanging(instance: string): boolean {
    return this.#changing.has(instance);
  }

  /** Runs a command in a guest, attached, for as long as the connection lasts. @throws IncusError */
  async openShell(instance: string, command: ShellCommand, onOutput: OnOutput): Promise<Shell> {
    const session = this.#session;
    const lost = new IncusError('Unknown', `host ${this.name} is not connected`);
    if (!session) throw lost;
    const shell = await openShell(session.client, this.#spec.project, instance, command, onOutput);
    if (this.#session !== session) {
      shell.close();
      throw lost;
    }
    this.#shells.add(shell);
    void shell.ended.then(() => this.#shells.delete(shell));
    return shell;
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('closed'));
    this.#session?.close();
    await this.#done;
  }

  #attempt(command: Command, signal?: AbortSignal): Promise<CommandOutcome> {
    const session = this.#session;
    if (!session) return Promise.resolve({ kind: 'unknown', message: `host ${this.name} is not connected` });
    const { client, link, watch, turns } = session;
    const ground = {
      client,
      clock: this.#options.clock,
      link,
      watch,
      turns,
      inventory: this.inventory,
      host: this.name,
      project: this.#spec.project,
      grants: this.#spec,
      namespaceLabels: this.#options.namespaceLabels,
      controllerId: this.#options.controllerId,
      logs: this.#options.logs,
      artifacts: this.#options.artifacts,
    };
    return perform(command, ground, signal);
  }

  async #live(): Promise<void> {
    const { clock, events } = this.#options;
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted;) {
      try {
        const why = await this.#connected(() => {
          failures = 0;
        });
        this.#down(new SshError('Unreachable', why));
      } catch (error) {
        this.#down(error);
      }
      events.changed(this.name, undefined);
      failures += 1;
      const ceiling = Math.min(longestBackoff, shortestBackoff * 2 ** Math.min(failures - 1, 10));
      await sleep(clock, ceiling * (0.5 + Math.random() / 2), signal).catch(() => undefined);
    }
  }

  /** One session, from connecting to its end. Returns why it ended. */
  async #connected(onUp: () => void): Promise<string> {
    const { clock, events, readKey } = this.#options;
    const { signal } = this.#stop;
    const link: Link = await openLink(this.#spec.connection, readKey, signal);
    const giveUp = () => link.close();
    let session: Session;
    try {
      // Whoever disconnects does not wait for the answers of a host that may never give them.
      signal.addEventListener('abort', giveUp);
      session = await Session.open(
        link,
        this.#spec.project,
        this.inventory,
        {
          changed: (instance) => {
            if (this.#session) events.changed(this.name, instance);
          },
          lifecycle: (action, instance) => {
            // A read may have shown it before the event came.
            const known = drifts[action] === 'Stopped' && this.inventory.get(instance)?.status === 'Stopped';
            if (!known) this.#noteDrift(instance, drifts[action]);
          },
          drifted: (instance, what) => this.#noteDrift(instance, what),
          eventLag: (milliseconds) => events.eventLag(this.name, milliseconds / 1000),
          request: (method, path) => events.request(this.name, method, path),
          facts: (facts) => this.#learn(facts),
        },
        clock,
      );
    } catch (error) {
      link.close();
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
    if (this.#stop.signal.aborted) {
      session.close();
      return 'closed';
    }
    this.#session = session;
    const { server_version: version, driver } = session.server.environment;
    this.#state = {
      kind: 'up',
      since: clock.now(),
      version,
      instanceTypes: [
        ...(/\blxc\b/.test(driver) ? (['Container'] as const) : []),
        ...(/\bqemu\b/.test(driver) ? (['VirtualMachine'] as const) : []),
      ],
      project: session.project.config,
      facts: session.facts,
    };
    onUp();
    const { client, turns } = session;
    this.#options.logs?.resume({ host: this.name, client, project: this.#spec.project, turns: turns.logs });
    events.changed(this.name, undefined);
    try {
      return await session.follow();
    } finally {
      this.#session = undefined;
      const why = this.#closing() ? 'disconnected from' : 'lost the connection to';
      for (const shell of this.#shells) shell.close(`the controller ${why} host ${this.name}`);
      this.#observedAt = clock.now();
    }
  }

  #closing(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Takes what the host says of itself by now. */
  #learn(facts: HostFacts): void {
    const state = this.#state;
    if (state.kind !== 'up' || isDeepStrictEqual(state.facts, facts)) return;
    this.#state = { ...state, facts };
    this.#options.events.changed(this.name, undefined);
  }

  #noteDrift(instance: string, kind: Drift | undefined): void {
    if (kind === undefined || this.#changing.has(instance)) return;
    const { events, controllerId } = this.#options;
    if (this.inventory.get(instance)?.labels['controller'] !== controllerId) return;
    events.drift(this.name, instance, kind);
  }

  #down(error: unknown): void {
    const since = this.#state.kind === 'down' ? this.#state.since : this.#options.clock.now();
    this.#state = { kind: 'down', since, ...explain(error) };
  }
}

function explain(error: unknown): { reason: string; message: string } {
  const cause = error instanceof Error && error.cause instanceof SshError ? error.cause : error;
  if (cause instanceof SshError) return { reason: cause.reason, message: cause.message };
  if (cause instanceof IncusError) {
    const reason =
      cause.kind === 'Forbidden' || cause.kind === 'NotFound' ? `Incus${cause.kind}` : 'IncusNotResponding';
    return { reason, message: cause.message };
  }
  return { reason: 'Unreachable', message: cause instanceof Error ? cause.message : String(cause) };
}
