import type { CiJob } from '../api/cijob.ts';
import type { IncusHost, IncusHostStatus } from '../api/incushost.ts';
import { instanceCleanupFinalizer } from '../api/meta.ts';
import type { Clock } from '../clock.ts';
import type { Engine } from '../reconcile/engine.ts';
import { keyOf } from '../reconcile/names.ts';
import type { JobStore } from '../reconcile/ports.ts';
import type { KubeClient } from './client.ts';
import { HostStatusWriter } from './host-status-writer.ts';
import { ClusterJobStore } from './job-store.ts';
import { Reflector } from './reflector.ts';
import { cijobs, incushosts, namespaces, type Namespace } from './resources.ts';

/** The hosts, as the cluster side drives them. */
export interface HostsOfCluster {
  put(resource: IncusHost): Promise<void>;
  remove(name: string): Promise<void>;
  /** What the status of a host should be; undefined when nothing is known of it. */
  status(resource: IncusHost): IncusHostStatus | undefined;
}

export interface ClusterControllerOptions {
  client: KubeClient;
  clock: Clock;
  hosts: HostsOfCluster;
  /** Makes the engine that reconciles what `store` holds. */
  engine: (store: JobStore) => Engine;
  /** Hears of every write to a CiJob. */
  onJobWrite: () => void;
  /** Hears of failures that are tried again by themselves. */
  onError: (what: string, error: unknown) => void;
}

/** The cluster side of a leader: follows CiJobs, IncusHosts and Namespaces, and has the engine look at what changed. */
export class ClusterController {
  readonly #jobs: Reflector<CiJob>;
  readonly #hosts: Reflector<IncusHost>;
  readonly #namespaces: Reflector<Namespace>;
  readonly #engine: Engine;
  readonly #hostStatus: HostStatusWriter;
  #started = false;

  constructor(options: ClusterControllerOptions) {
    const { client, clock, onError, hosts } = options;
    const common = { client, clock };
    this.#jobs = new Reflector({
      ...common,
      resource: cijobs,
      onChange: (key) => {
        if (this.#started) this.#engine.wake(key);
      },
      onError: (error) => onError('cijobs', error),
    });
    this.#hosts = new Reflector({
      ...common,
      resource: incushosts,
      onChange: (name, before, after) => {
        if (after?.metadata.generation === before?.metadata.generation && before && after) {
          if (JSON.stringify(before.metadata.labels) === JSON.stringify(after.metadata.labels)) return;
        }
        const changing = after ? hosts.put(after) : hosts.remove(name);
        changing.catch((error: unknown) => onError(`incushost ${name}`, error));
        this.#hostStatus.wake(name);
      },
      onError: (error) => onError('incushosts', error),
    });
    this.#namespaces = new Reflector({
      ...common,
      resource: namespaces,
      onChange: () => undefined,
      onError: (error) => onError('namespaces', error),
    });
    const store = new ClusterJobStore(client, (key) => this.#jobs.get(key), options.onJobWrite);
    this.#engine = options.engine(store);
    this.#hostStatus = new HostStatusWriter({
      client,
      clock,
      get: (name) => this.#hosts.get(name),
      compute: (host) => hosts.status(host),
      onError: (name, error) => onError(`status of incushost ${name}`, error),
    });
  }

  get engine(): Engine {
    return this.#engine;
  }

  /** Every CiJob there is. */
  jobs(): CiJob[] {
    return this.#jobs.list();
  }

  job(key: string): CiJob | undefined {
    return this.#jobs.get(key);
  }

  host(name: string): IncusHost | undefined {
    return this.#hosts.get(name);
  }

  /** Uids of all CiJobs, of those we cannot read too; undefined while they are not known. */
  jobUids(): ReadonlySet<string> | undefined {
    if (!this.#started) return undefined;
    return new Set([...this.#jobs.list().map((job) => job.metadata.uid), ...this.#jobs.unreadable.values()]);
  }

  namespaceLabels(name: string): Readonly<Record<string, string>> {
    return this.#namespaces.get(name)?.metadata.labels ?? {};
  }

  /** Whether the first lists are in. */
  get ready(): boolean {
    return this.#started;
  }

  hostChanged(name: string): void {
    this.#hostStatus.wake(name);
  }

  /** Lists everything, takes up what jobs hold already, and begins. */
  async start(): Promise<void> {
    for (const reflector of [this.#namespaces, this.#jobs, this.#hosts]) reflector.start();
    await Promise.all([this.#namespaces.synced, this.#jobs.synced, this.#hosts.synced]);
    const jobs = this.#jobs.list();
    for (const job of jobs) {
      const ours = job.metadata.finalizers?.includes(instanceCleanupFinalizer) ?? false;
      if (ours) this.#engine.adopt(keyOf(job.metadata), job);
    }
    this.#started = true;
    for (const job of jobs) this.#engine.wake(keyOf(job.metadata));
  }

  /** Stops looking, and lets what is being written be written. Guests go on. */
  async stop(): Promise<void> {
    await Promise.all([this.#jobs.stop(), this.#hosts.stop(), this.#namespaces.stop()]);
    await Promise.all([this.#engine.stop(), this.#hostStatus.stop()]);
  }
}
