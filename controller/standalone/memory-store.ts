import { randomUUID } from 'node:crypto';
import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import { apiVersion, instanceCleanupFinalizer } from '../api/meta.ts';
import { keyOf } from '../reconcile/names.ts';
import { Conflict, type JobStore } from '../reconcile/ports.ts';

/** What a manifest says of a CiJob. */
export interface JobManifest {
  metadata: {
    name: string;
    namespace?: string | undefined;
    labels?: Record<string, string> | undefined;
    annotations?: Record<string, string> | undefined;
  };
  spec: CiJob['spec'];
}

/** Jobs in memory, behaving as the API server does: versions go up, and a write on an old version is refused. */
export class MemoryStore implements JobStore {
  readonly #jobs = new Map<string, CiJob>();
  readonly #secrets = new Map<string, Readonly<Record<string, string>>>();
  readonly #onChange: (key: string) => void;
  #version = 0;

  constructor(onChange: (key: string) => void) {
    this.#onChange = onChange;
  }

  /** Adds a job as `kubectl create` does. */
  create(manifest: JobManifest, now: number): CiJob {
    const { labels, annotations } = manifest.metadata;
    return this.#put({
      apiVersion,
      kind: 'CiJob',
      metadata: {
        name: manifest.metadata.name,
        namespace: manifest.metadata.namespace ?? 'default',
        uid: randomUUID(),
        generation: 1,
        creationTimestamp: new Date(now).toISOString(),
        ...(labels ? { labels } : {}),
        ...(annotations ? { annotations } : {}),
      },
      spec: manifest.spec,
    });
  }

  get(key: string): CiJob | undefined {
    return this.#jobs.get(key);
  }

  all(): CiJob[] {
    return [...this.#jobs.values()];
  }

  /** Asks for the end of a job, as setting `spec.cancel` does. */
  cancel(key: string): void {
    const job = this.#jobs.get(key);
    if (!job) return;
    const generation = job.metadata.generation + 1;
    this.#put({ ...job, metadata: { ...job.metadata, generation }, spec: { ...job.spec, cancel: true } });
  }

  addFinalizer(job: CiJob): Promise<CiJob> {
    return this.#update(job, (current) => ({
      ...current,
      metadata: {
        ...current.metadata,
        finalizers: [...(current.metadata.finalizers ?? []), instanceCleanupFinalizer],
      },
    }));
  }

  async removeFinalizer(job: CiJob): Promise<void> {
    await this.#update(job, (current) => ({
      ...current,
      metadata: {
        ...current.metadata,
        finalizers: (current.metadata.finalizers ?? []).filter((one) => one !== instanceCleanupFinalizer),
      },
    }));
  }

  writeStatus(job: CiJob, status: CiJobStatus): Promise<CiJob> {
    return this.#update(job, (current) => ({ ...current, status }));
  }

  delete(job: CiJob): Promise<void> {
    const key = keyOf(job.metadata);
    this.#jobs.delete(key);
    this.#onChange(key);
    return Promise.resolve();
  }

  /** Adds a Secret; its values are base64. */
  putSecret(namespace: string, name: string, data: Readonly<Record<string, string>>): void {
    this.#secrets.set(`${namespace}/${name}`, data);
  }

  secret(namespace: string, name: string, key: string): Promise<Buffer | undefined> {
    const value = this.#secrets.get(`${namespace}/${name}`)?.[key];
    return Promise.resolve(value === undefined ? undefined : Buffer.from(value, 'base64'));
  }

  #update(job: CiJob, change: (current: CiJob) => CiJob): Promise<CiJob> {
    const current = this.#jobs.get(keyOf(job.metadata));
    if (current?.metadata.resourceVersion !== job.metadata.resourceVersion) {
      return Promise.reject(new Conflict(`${keyOf(job.metadata)} has changed`));
    }
    return Promise.resolve(this.#put(change(current ?? job)));
  }

  #put(job: CiJob): CiJob {
    this.#version += 1;
    const stored = { ...job, metadata: { ...job.metadata, resourceVersion: String(this.#version) } };
    const key = keyOf(job.metadata);
    this.#jobs.set(key, stored);
    this.#onChange(key);
    return stored;
  }
}
