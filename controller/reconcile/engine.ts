import { randomUUID } from 'node:crypto';
import type { Clock } from '../clock.ts';
import type { CiJob } from '../api/cijob.ts';
import { Reconciler, type ReconcilerOptions } from './reconciler.ts';
import { Conflict } from './ports.ts';
import { WorkQueue, type WorkQueueObserver } from './work-queue.ts';

export interface EngineOptions extends Omit<ReconcilerOptions, 'wake'> {
  clock: Clock;
  /** Jobs looked at at once. Looking never waits for Incus, so a few are enough. */
  concurrency: number;
  /** Hears why a look at a job failed; `reconcileID` is that of the other things it told the observer. */
  onError: (key: string, error: unknown, reconcileID: string) => void;
  onReconcile?: (seconds: number, failed: boolean) => void;
  queueObserver?: WorkQueueObserver;
}

/** The reconciler and its queue: what has something to say about a job wakes it here. */
export class Engine {
  readonly queue: WorkQueue;
  readonly #reconciler: Reconciler;
  readonly #options: EngineOptions;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#reconciler = new Reconciler({ ...options, wake: (key) => this.queue.add(key) });
    this.queue = new WorkQueue({
      clock: options.clock,
      concurrency: options.concurrency,
      process: (key) => this.#process(key),
      onError: () => undefined,
      ...(options.queueObserver ? { observer: options.queueObserver } : {}),
    });
  }

  /** Has a job looked at. */
  wake(key: string): void {
    this.queue.add(key);
  }

  /** Takes up a slot that a job already holds, before others ask for theirs. */
  adopt(key: string, job: CiJob): void {
    this.#reconciler.adopt(key, job);
  }

  /**
   * Has the jobs looked at that a change on a host concerns: the instance's own, or, when none is named, all that
   * are on the host.
   *
   * @param owner the job that the instance's labels name, for instances that this process has not met.
   */
  hostChanged(host: string, instance: string | undefined, owner: string | undefined): void {
    if (instance === undefined) {
      for (const key of this.#reconciler.keysOn(host)) this.queue.add(key);
      return;
    }
    const key = this.#reconciler.keyOfInstance(instance) ?? owner;
    if (key !== undefined) this.queue.add(key);
  }

  /** Stops looking at jobs. What runs in guests goes on; the next controller takes it up. */
  stop(): Promise<void> {
    return this.queue.shutDown();
  }

  async #process(key: string): Promise<void> {
    const { clock, onError, onReconcile } = this.#options;
    const started = clock.now();
    const reconcileID = randomUUID();
    let failed = true;
    try {
      const wakeAt = await this.#reconciler.reconcile(key, reconcileID);
      failed = false;
      this.queue.forget(key);
      // An earlier look that was planned is for nothing where there is no more to wait for, such as when the job is gone.
      if (wakeAt === undefined) this.queue.callOff(key);
      else this.queue.addAfter(key, wakeAt - clock.now());
    } catch (error) {
      // Somebody else wrote first: the newer object is on its way and says all there is to say.
      if (!(error instanceof Conflict)) onError(key, error, reconcileID);
      throw error;
    } finally {
      onReconcile?.((clock.now() - started) / 1000, failed);
    }
  }
}
