import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import { instanceCleanupFinalizer } from '../api/meta.ts';
import { keyOf } from '../reconcile/names.ts';
import { Conflict, type JobStore } from '../reconcile/ports.ts';
import { hasReason } from './api-error.ts';
import type { KubeClient } from './client.ts';
import { cijobs } from './resources.ts';
import { readSecret } from './secrets.ts';

/** CiJobs of the cluster: read from the reflector's copy, written to the API server. */
export class ClusterJobStore implements JobStore {
  readonly #client: KubeClient;
  readonly #cached: (key: string) => CiJob | undefined;
  /** What we wrote and the reflector has not shown us yet. Acting on less would be acting on our own past. */
  readonly #written = new Map<string, CiJob>();
  readonly #onWrite: () => void;

  constructor(
    client: KubeClient,
    cached: (key: string) => CiJob | undefined,
    onWrite: () => void = () => undefined,
  ) {
    this.#client = client;
    this.#cached = cached;
    this.#onWrite = onWrite;
  }

  get(key: string): CiJob | undefined {
    const cached = this.#cached(key);
    const written = this.#written.get(key);
    if (!written) return cached;
    if (cached?.metadata.uid === written.metadata.uid && version(cached) < version(written)) return written;
    this.#written.delete(key);
    return cached;
  }

  addFinalizer(job: CiJob): Promise<CiJob> {
    const finalizers = [...(job.metadata.finalizers ?? []), instanceCleanupFinalizer];
    return this.#patch(job, [{ op: 'add', path: '/metadata/finalizers', value: finalizers }]);
  }

  async removeFinalizer(job: CiJob): Promise<void> {
    const finalizers = (job.metadata.finalizers ?? []).filter((one) => one !== instanceCleanupFinalizer);
    await this.#patch(job, [{ op: 'add', path: '/metadata/finalizers', value: finalizers }]);
  }

  writeStatus(job: CiJob, status: CiJobStatus): Promise<CiJob> {
    return this.#patch(job, [{ op: 'add', path: '/status', value: status }], 'status');
  }

  async delete({ metadata }: CiJob): Promise<void> {
    try {
      await this.#client.delete(cijobs, metadata, { uid: metadata.uid });
    } catch (error) {
      if (!hasReason(error, 'NotFound') && !hasReason(error, 'Conflict')) throw error;
    }
  }

  secret(namespace: string, name: string, key: string): Promise<Buffer | undefined> {
    return readSecret(this.#client, namespace, name, key);
  }

  /** One write, refused when the object is not the one we know any more. */
  async #patch(job: CiJob, operations: object[], subresource?: 'status'): Promise<CiJob> {
    this.#onWrite();
    try {
      const { resourceVersion } = job.metadata;
      const guarded = { resourceVersion, ...(subresource ? { subresource } : {}) };
      const written = await this.#client.jsonPatch(cijobs, job.metadata, operations, guarded);
      this.#written.set(keyOf(job.metadata), written);
      return written;
    } catch (error) {
      // What we wrote last stays the least that we know: the reflector's copy may be older still.
      if (hasReason(error, 'Conflict') || hasReason(error, 'NotFound')) throw new Conflict(error.message);
      throw error;
    }
  }
}

/** Versions of one kind of object are comparable numbers (KEP-5504). */
function version({ metadata }: CiJob): bigint {
  return BigInt(metadata.resourceVersion ?? '0');
}
