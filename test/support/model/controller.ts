import type { IncusHost } from '../../../controller/api/incushost.ts';
import { instanceCleanupFinalizer } from '../../../controller/api/meta.ts';
import { HostPool } from '../../../controller/hosts/pool.ts';
import { ClusterJobStore } from '../../../controller/kube/job-store.ts';
import { Engine } from '../../../controller/reconcile/engine.ts';
import { keyOf } from '../../../controller/reconcile/names.ts';
import { defaultPatience } from '../../../controller/reconcile/observed.ts';
import { Watch, type ModelApi } from './api.ts';
import type { ModelClock } from './clock.ts';
import type { ModelHost } from './host.ts';
import type { Wire } from './wire.ts';

export interface ControllerOptions {
  name: string;
  api: ModelApi;
  wire: Wire;
  clock: ModelClock;
  hosts: readonly IncusHost[];
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
  readonly #options: ControllerOptions;

  constructor(options: ControllerOptions) {
    const { name, api, wire } = options;
    this.#options = options;
    this.name = name;
    this.watch = new Watch(api);
    const clock = options.clock.of(name);
    const store = new ClusterJobStore(
      api.client(wire, name, () => clock.now()),
      (key) => this.watch.copy.get(key),
    );
    this.pool = new HostPool({
      controllerId: 'model',
      clock,
      readKey: () => Promise.resolve(''),
      onAdmitted: (key) => this.engine.wake(key),
      events: {
        changed: (host, instance) => {
          if (instance === undefined) for (const key of this.pool.waitingKeys()) this.engine.wake(key);
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
      controllerId: 'model',
      patience: defaultPatience,
      namespaceLabels: () => ({}),
      onError: (_key, error) => this.errors.push(error),
      observer: { status: () => undefined, command: () => undefined },
    });
    for (const host of options.hosts) {
      const socketPath = `/${name}/${host.metadata.name}`;
      void this.pool.put({ ...host, spec: { ...host.spec, connection: { local: { socketPath } } } });
    }
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
    const key = this.watch.next();
    if (key !== undefined) this.engine.wake(key);
  }

  /** Kill -9: nothing is finished, nothing is told, all memory is lost. */
  crash(): void {
    const { clock, wire, api } = this.#options;
    clock.forget(this.name);
    api.watches.delete(this.watch);
    void this.engine.stop();
    wire.abandon(this.name);
    void this.pool.close();
    clock.forget(this.name);
  }
}
