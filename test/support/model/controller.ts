import type { IncusHost } from '../../../controller/api/incushost.ts';
import { instanceCleanupFinalizer } from '../../../controller/api/meta.ts';
import type { Artifacts } from '../../../controller/hosts/artifacts.ts';
import { HostPool } from '../../../controller/hosts/pool.ts';
import { ClusterJobStore } from '../../../controller/kube/job-store.ts';
import { Engine } from '../../../controller/reconcile/engine.ts';
import { keyOf } from '../../../controller/reconcile/names.ts';
import { defaultPatience, type Patience } from '../../../controller/reconcile/observed.ts';
import type { Observer } from '../../../controller/reconcile/ports.ts';
import type { Clock } from '../../../controller/clock.ts';
import { Watch, type ModelApi, type Send } from './api.ts';
import type { ModelHost } from './host.ts';

export interface ControllerOptions {
  name: string;
  api: ModelApi;
  send: Send;
  clock: Clock;
  /** Identity of its installation. */
  controllerId?: string;
  hosts: readonly IncusHost[];
  patience?: Partial<Patience>;
  /** Takes in changes as they come, instead of when {@link ModelController.see} is called. */
  prompt?: boolean;
  artifacts?: Artifacts | undefined;
  namespaceLabels?: (namespace: string) => Readonly<Record<string, string>>;
  observer?: Observer;
}

/** One process of the controller: the real engine, pool and store, wired up as controller/cli/controller.ts does. */
export class ModelController {
  readonly name: string;
  readonly watch: Watch;
  readonly pool: HostPool;
  readonly engine: Engine;
  /** The watch brings nothing for a while. */
  lagging = false;
  readonly errors: unknown[] = [];
  crashed = false;
  readonly #options: ControllerOptions;

  constructor(options: ControllerOptions) {
    const { name, api, send, clock, controllerId = 'model', namespaceLabels = () => ({}) } = options;
    this.#options = options;
    this.name = name;
    this.watch = new Watch(api, () => {
      if (options.prompt) setImmediate(() => this.see());
    });
    const store = new ClusterJobStore(
      api.client(send, () => clock.now()),
      (key) => this.watch.copy.get(key),
    );
    this.pool = new HostPool({
      controllerId,
      clock,
      readKey: () => Promise.resolve(''),
      ...(options.artifacts ? { artifacts: options.artifacts } : {}),
      wake: (key) => this.engine.wake(key),
      namespaceLabels,
      events: {
        changed: (host, instance) => {
          this.engine.hostChanged(
            host,
            instance,
            instance === undefined ? undefined : this.pool.ownerOf(host, instance),
          );
        },
        command: () => undefined,
        eventLag: () => undefined,
        request: () => undefined,
        drift: () => undefined,
      },
    });
    this.engine = new Engine({
      store,
      hosts: this.pool,
      clock,
      concurrency: 2,
      controllerId,
      patience: { ...defaultPatience, ...options.patience },
      namespaceLabels,
      onError: (_key, error) => this.errors.push(error),
      observer: options.observer ?? { status: () => undefined, command: () => undefined },
    });
    for (const host of options.hosts) void this.pool.put(host);
    for (const job of this.watch.copy.values()) {
      if (job.metadata.finalizers?.includes(instanceCleanupFinalizer))
        this.engine.adopt(keyOf(job.metadata), job);
    }
    for (const key of this.watch.copy.keys()) this.engine.wake(key);
  }

  get hosts(): ModelHost[] {
    return this.pool.all() as unknown as ModelHost[];
  }

  /** Takes in the next change of a job. */
  see(): void {
    if (this.crashed) return;
    const key = this.watch.next();
    if (key !== undefined) this.engine.wake(key);
  }

  /** Kill -9: nothing is finished, nothing is told, all memory is lost. Whoever owns the wire and the clock ends those. */
  async crash(): Promise<void> {
    this.crashed = true;
    this.#options.api.watches.delete(this.watch);
    void this.engine.stop();
    await this.pool.close();
  }
}
