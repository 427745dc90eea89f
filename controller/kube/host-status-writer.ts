import type { IncusHost, IncusHostStatus } from '../api/incushost.ts';
import type { Clock } from '../clock.ts';
import { WorkQueue } from '../reconcile/work-queue.ts';
import { hasReason } from './api-error.ts';
import type { KubeClient } from './client.ts';
import { incushosts } from './resources.ts';

export interface HostStatusWriterOptions {
  client: KubeClient;
  clock: Clock;
  get: (name: string) => IncusHost | undefined;
  /** What the status should be now; undefined when nothing is known of the host. */
  compute: (host: IncusHost) => IncusHostStatus | undefined;
  onError: (name: string, error: unknown) => void;
}

/** How often counts and times are written, when nothing else has changed; in milliseconds. */
const refreshInterval = 30_000;

/** Keeps the status of IncusHosts: conditions at once, slots and times now and then, so that jobs cost no writes here. */
export class HostStatusWriter {
  readonly #options: HostStatusWriterOptions;
  readonly #queue: WorkQueue;
  readonly #writtenAt = new Map<string, number>();

  constructor(options: HostStatusWriterOptions) {
    this.#options = options;
    this.#queue = new WorkQueue({
      clock: options.clock,
      concurrency: 1,
      process: (name) => this.#write(name),
      onError: (name, error) => {
        if (!hasReason(error, 'Conflict')) options.onError(name, error);
      },
    });
  }

  wake(name: string): void {
    this.#queue.add(name);
  }

  stop(): Promise<void> {
    return this.#queue.shutDown();
  }

  async #write(name: string): Promise<void> {
    const { client, clock, get, compute } = this.#options;
    const host = get(name);
    const status = host && compute(host);
    if (!host || !status) {
      this.#writtenAt.delete(name);
      return;
    }
    this.#queue.addAfter(name, refreshInterval);
    const now = clock.now();
    const due = now - (this.#writtenAt.get(name) ?? 0) >= refreshInterval;
    if (!due && essence(host.status) === essence(status)) return;
    if (essence(host.status, true) === essence(status, true)) return;
    const { resourceVersion } = host.metadata;
    const patch = [{ op: 'add', path: '/status', value: status }];
    await client.jsonPatch(incushosts, { name }, patch, { subresource: 'status', resourceVersion });
    this.#writtenAt.set(name, now);
    this.#queue.forget(name);
  }
}

/** What of a status is news at once; with `all`, what is news at all. */
function essence(status: IncusHostStatus | undefined, all = false): string {
  return JSON.stringify([
    status?.conditions,
    status?.observedGeneration,
    status?.incus,
    status?.capacity,
    all ? status?.instances : 0,
  ]);
}
