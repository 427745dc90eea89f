import { readFile } from 'node:fs/promises';
import type { CiJob } from '../api/cijob.ts';
import { systemClock } from '../clock.ts';
import type { Artifacts } from '../hosts/artifacts.ts';
import type { LiveLogs } from '../hosts/live-logs.ts';
import { HostPool } from '../hosts/pool.ts';
import type { InstanceView } from '../incus/inventory.ts';
import { Engine } from '../reconcile/engine.ts';
import { OrphanSweep } from '../reconcile/orphan-sweep.ts';
import { isAbandoned, runOwnerId } from '../reconcile/run-owner.ts';
import { defaultPatience } from '../reconcile/observed.ts';
import type { Observer } from '../reconcile/ports.ts';
import { isFinished } from '../reconcile/step.ts';
import { MemoryStore } from '../standalone/memory-store.ts';
import type { Input } from './input.ts';
import { LostHosts } from './lost-hosts.ts';
import { processLives, thisProcess } from './this-process.ts';
import { UsageError } from './usage-error.ts';

export interface StandaloneOptions {
  /** Hosts to connect to, and Secrets that hosts and jobs refer to. */
  input: Pick<Input, 'hosts' | 'secrets'>;
  /** File with the private key for hosts that are reached through SSH. */
  identity?: string | undefined;
  logs?: LiveLogs | undefined;
  artifacts?: Artifacts | undefined;
  observer: Observer;
  /** A job was stored, changed or deleted. */
  onJob: (key: string) => void;
  /** Takes a line for people about something that is not a job's own: a host, a failed look. */
  say: (line: string) => void;
  /** How long a host may be out of reach before its attempts count as lost, in milliseconds. Default: ten minutes. */
  hostGrace?: number | undefined;
  /** A host has been out of reach for so long. */
  onHostLost?: () => void;
}

/** How long a host that is out of reach is waited for once a job on it was cancelled, in milliseconds. */
const cancelGrace = 20_000;

/** An instance that may still be there. */
export interface LeftBehind {
  instance: string;
  host: string;
}

/** No host could be connected. Its message says why of each. */
export class NoHostConnected extends Error {
  override readonly name = 'NoHostConnected';
}

/** The controller without a cluster: the same reconcile code over jobs in memory. */
export class Standalone {
  readonly store: MemoryStore;
  readonly pool: HostPool;
  readonly engine: Engine;
  readonly #lost: LostHosts;
  readonly #sweep: OrphanSweep;
  readonly #options: StandaloneOptions;
  /** Called whenever a host has come or gone. */
  #hostChanged: (host: string) => void = () => undefined;

  constructor(options: StandaloneOptions) {
    const { input, observer, logs, artifacts, say } = options;
    this.#options = options;
    this.store = new MemoryStore((key) => {
      this.engine.wake(key);
      options.onJob(key);
    });
    for (const { metadata, data } of input.secrets) {
      this.store.putSecret(metadata.namespace ?? 'default', metadata.name, data);
    }
    const self = thisProcess();
    this.pool = new HostPool({
      // Nothing but this process looks after its instances, so no other may take them for its own while it lives.
      controllerId: runOwnerId(self),
      clock: systemClock,
      readKey: (reference) => this.#readKey(reference),
      ...(logs ? { logs } : {}),
      ...(artifacts ? { artifacts } : {}),
      wake: (key) => this.engine.wake(key),
      namespaceLabels: () => ({}),
      events: {
        changed: (host, instance) => {
          if (instance === undefined) this.#hostChanged(host);
          this.engine.hostChanged(host, instance, undefined);
        },
        drift: (host, instance, kind) => say(`instance ${instance} on ${host}: ${kind}, not by this program`),
        command: () => undefined,
        eventLag: () => undefined,
        request: () => undefined,
      },
    });
    const hostGrace = options.hostGrace ?? defaultPatience.hostGrace;
    this.#lost = new LostHosts({
      hosts: this.pool,
      clock: systemClock,
      grace: hostGrace,
      say,
      onLost: () => {
        for (const key of this.pool.waitingKeys()) this.engine.wake(key);
        options.onHostLost?.();
      },
    });
    this.#sweep = new OrphanSweep({
      clock: systemClock,
      hosts: this.pool,
      orphans: () => {
        const from = { place: self.place, lives: processLives };
        return this.pool.instances().filter(({ instance }) => isAbandoned(instance, systemClock.now(), from));
      },
      grace: 0,
      onRemoved: (host, instance) => say(`${leftover(host, instance)}: removed`),
      onError: (host, instance, why) => say(`${leftover(host, instance)}, and cannot be removed: ${why}`),
    });
    this.engine = new Engine({
      store: this.store,
      hosts: this.pool,
      clock: systemClock,
      concurrency: 8,
      controllerId: this.pool.controllerId,
      patience: { ...defaultPatience, hostGrace, cancelGrace: Math.min(cancelGrace, hostGrace) },
      hostless: (hosts) => hosts.every((host) => this.#lost.has(host)),
      namespaceLabels: () => ({}),
      onError: (key, error) => say(`${key}: ${error instanceof Error ? error.message : String(error)}`),
      observer,
    });
  }

  /**
   * Connects to all hosts, and returns when each is connected or its first try has failed; those are tried again.
   *
   * @throws UsageError when a private key is not given, NoHostConnected when no host can be connected.
   */
  async connect(): Promise<void> {
    const { input } = this.#options;
    for (const { spec } of input.hosts) {
      if (spec.connection.ssh) await this.#readKey(spec.connection.ssh.privateKeySecretRef);
    }
    const { promise: settled, resolve } = Promise.withResolvers<undefined>();
    this.#hostChanged = () => {
      if (this.pool.all().every(({ state }) => state.kind === 'up' || state.reason !== 'Connecting')) {
        resolve(undefined);
      }
    };
    await Promise.all(input.hosts.map((host) => this.pool.put(host)));
    await settled;
    const failures = this.pool
      .all()
      .flatMap(({ name, state }) => (state.kind === 'down' ? `host ${name}: ${state.message}` : []));
    if (failures.length === input.hosts.length) throw new NoHostConnected(failures.join('\n'));
    this.#hostChanged = (host) => this.#lost.changed(host);
    for (const { name } of this.pool.all()) this.#lost.changed(name);
  }

  /**
   * Removes what runs that are dead left on the hosts, now and until {@link close}. Resolves when that was done once.
   */
  async removeAbandoned(): Promise<void> {
    await this.#sweep.sweep();
    this.#sweep.start();
  }

  /** What {@link removeAbandoned} removes at the moment, in words; undefined if nothing. */
  leftover(): string | undefined {
    const { removing } = this.#sweep;
    return removing && leftover(removing.host, removing.instance);
  }

  /** Ends a job, and waits less than usual for a host that is out of reach. */
  cancel(key: string): void {
    this.#lost.hurry(cancelGrace);
    this.store.cancel(key);
  }

  /**
   * Instances of finished jobs that cannot be taken away, because their hosts are lost. Undefined while something is left
   * that can be.
   */
  leftBehind(): LeftBehind[] | undefined {
    const unclean = this.store.all().filter(({ metadata }) => metadata.finalizers?.length);
    const left = unclean.map((job) => this.#leftBy(job));
    return left.includes(undefined) ? undefined : left.flatMap((of) => of ?? []);
  }

  #leftBy(job: CiJob): LeftBehind[] | undefined {
    const { host = '', instance, attempts = [] } = job.status ?? {};
    const all = [
      { host, instance: instance?.name ?? '' },
      ...attempts.map(({ host = '', instance = '' }) => ({ host, instance })),
    ];
    const unseen = all.filter((one) => one.instance !== '' && this.pool.state(one.host)?.kind !== 'up');
    const within = this.pool.instancesOf(job.metadata.uid).length === 0;
    return isFinished(job) && within && unseen.length > 0 && unseen.every((one) => this.#lost.has(one.host))
      ? unseen
      : undefined;
  }

  /** Stops looking at jobs and disconnects. */
  async close(): Promise<void> {
    this.#hostChanged = () => undefined;
    this.#lost.close();
    this.#sweep.stop();
    await this.engine.stop();
    await this.pool.close();
  }

  /** Private keys outside a cluster: a file given on the command line, or a Secret among the manifests. */
  async #readKey({ name, key }: { name: string; key: string }): Promise<string> {
    const { identity, input } = this.#options;
    if (identity !== undefined) {
      return readFile(identity, 'utf8').catch((error: unknown) => {
        throw new UsageError(`${identity} cannot be read: ${(error as Error).message}`);
      });
    }
    const value = input.secrets.find((secret) => secret.metadata.name === name)?.data[key];
    if (value === undefined) {
      throw new UsageError(
        `give the private key with --identity FILE, or a Secret ${name} with the key ${key} among the manifests`,
      );
    }
    return Buffer.from(value, 'base64').toString('utf8');
  }
}

function leftover(host: string, { name, labels }: InstanceView): string {
  const job = `${labels['namespace'] ?? ''}/${labels['name'] ?? ''}`;
  return `instance ${name} on host ${host} was left behind by a \`cijob run\` that is dead (CiJob ${job})`;
}
