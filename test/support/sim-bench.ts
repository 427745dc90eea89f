import { setTimeout as pause } from 'node:timers/promises';
import { CiJob } from '../../controller/api/cijob.ts';
import { IncusHost, type IncusHostSpec } from '../../controller/api/incushost.ts';
import { apiVersion } from '../../controller/api/meta.ts';
import type { Artifacts } from '../../controller/hosts/artifacts.ts';
import { systemClock, type Clock } from '../../controller/clock.ts';
import type { Patience } from '../../controller/reconcile/observed.ts';
import type { Observer } from '../../controller/reconcile/ports.ts';
import { isFinished } from '../../controller/reconcile/step.ts';
import type { GuestScript } from './incus-sim/guest-script.ts';
import { IncusSim } from './incus-sim/sim.ts';
import { ModelApi, type Send } from './model/api.ts';
import { ModelController } from './model/controller.ts';

/** What a job of the bench asks, beside the usual. */
export type BenchSpec = Partial<CiJob['spec']> & { image?: string; namespace?: string };

/** What each controller of a bench gets, made anew for each. */
export interface BenchParts {
  artifacts?: () => Artifacts;
  observe?: () => Observer;
  /** The controller's. The simulated Incus goes by the machine's. */
  clock?: Clock;
  /** What the IncusHost says, beside the usual. */
  host?: Partial<IncusHostSpec>;
  /** Labels of every namespace. */
  namespaceLabels?: () => Readonly<Record<string, string>>;
}

/** Short pauses between attempts, so that a test does not wait for them. */
const hasty: Partial<Patience> = { retryBase: 10, retryMax: 20 };

/**
 * The real engine, pool, sessions and HTTP over a simulated Incus on a unix socket, with a model of the API server.
 * The controller can be dropped at any request, and another be started on what is left.
 */
export class SimBench {
  readonly api = new ModelApi();
  readonly sim: IncusSim;
  /** Requests so far: to Incus and to the API server together. */
  requests = 0;
  /** Called at each request, before it takes effect; may drop the controller. */
  atRequest: (count: number) => 'before' | 'after' | undefined = () => undefined;
  controller: ModelController;
  readonly #socketPath: string;
  readonly #capacity: number;
  readonly #parts: BenchParts;
  #born = 0;

  private constructor(
    socketPath: string,
    capacity: number,
    guest: GuestScript | ((name: string) => GuestScript),
    parts: BenchParts,
  ) {
    this.#parts = parts;
    this.#socketPath = socketPath;
    this.#capacity = capacity;
    this.sim = new IncusSim({ guest, timings: { create: 1, start: 1, stop: 1, delete: 1 } });
    this.sim.store.addImage('image');
    this.sim.store.addImage('vm-image', 'virtual-machine');
    this.sim.faults.each = () => {
      const when = this.#count();
      return when && { kind: 'drop', when };
    };
    this.controller = this.#launch();
  }

  /** @param observe Makes what each controller that is born tells what happens. */
  static async start(
    socketPath: string,
    guest: GuestScript | ((name: string) => GuestScript),
    capacity = 4,
    parts: BenchParts = {},
  ): Promise<SimBench> {
    const bench = new SimBench(socketPath, capacity, guest, parts);
    await bench.sim.listen(socketPath);
    return bench;
  }

  /** The one host, with a part of its spec changed. */
  host(change: Partial<IncusHostSpec> = {}): IncusHost {
    return IncusHost.parse({
      apiVersion,
      kind: 'IncusHost',
      metadata: { name: 'host', uid: 'uid-host', creationTimestamp: new Date(Date.now()).toISOString() },
      spec: {
        connection: { local: { socketPath: this.#socketPath } },
        capacity: { instances: this.#capacity },
        maxConcurrentStarts: 64,
        allowedNamespaces: { all: true },
        ...this.#parts.host,
        ...change,
      },
    });
  }

  create(name: string, spec: BenchSpec = {}): string {
    const { image = 'image', namespace = 'default', ...rest } = spec;
    this.api.put(
      CiJob.parse({
        apiVersion,
        kind: 'CiJob',
        metadata: {
          name,
          namespace,
          uid: `uid-${name}`,
          creationTimestamp: new Date(Date.now()).toISOString(),
        },
        spec: { command: 'true', instance: { type: 'Container', image }, ...rest },
      }),
    );
    return `${namespace}/${name}`;
  }

  /** Drops the controller wholesale and starts another one that knows nothing. */
  async replaceController(): Promise<void> {
    const old = this.controller;
    this.controller = this.#launch();
    await old.crash();
  }

  /** Waits until every job is over and let go of. Rejects with what is still there after `within` milliseconds. */
  async settled(within = 15_000): Promise<void> {
    const end = performance.now() + within;
    for (;;) {
      const open = [...this.api.jobs.values()].filter(
        (job) => !isFinished(job) || job.metadata.finalizers?.length,
      );
      if (open.length === 0) return;
      if (performance.now() > end) {
        const [job] = open;
        throw new Error(`${open.length} jobs are not settled: ${JSON.stringify(job?.status)}`);
      }
      await pause(5);
    }
  }

  /** Waits until every job has been deleted, as its ttl says. */
  async gone(within: number): Promise<void> {
    const end = performance.now() + within;
    while (this.api.jobs.size > 0) {
      if (performance.now() > end) {
        const [job] = this.api.jobs.values();
        throw new Error(`${this.api.jobs.size} jobs are still there: ${JSON.stringify(job)}`);
      }
      await pause(5);
    }
  }

  async close(): Promise<void> {
    await this.controller.crash();
    this.sim.close();
  }

  #count(): 'before' | 'after' | undefined {
    this.requests += 1;
    return this.atRequest(this.requests);
  }

  #launch(): ModelController {
    this.#born += 1;
    const { artifacts, observe, namespaceLabels, clock = systemClock } = this.#parts;
    const send: Send = async (_words, effect, lost) => {
      await Promise.resolve();
      // The dead send nothing.
      if (controller.crashed) return new Promise<never>(() => undefined);
      const when = this.#count();
      if (when === 'before') throw lost();
      const value = effect();
      await Promise.resolve();
      if (when === 'after') throw lost();
      return value;
    };
    const controller: ModelController = new ModelController({
      name: `controller-${this.#born}`,
      api: this.api,
      send,
      clock,
      hosts: [this.host()],
      patience: hasty,
      prompt: true,
      artifacts: artifacts?.(),
      ...(namespaceLabels ? { namespaceLabels } : {}),
      ...(observe ? { observer: observe() } : {}),
    });
    return controller;
  }
}
