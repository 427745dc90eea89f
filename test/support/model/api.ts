import type { CiJob } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { ApiError } from '../../../controller/kube/api-error.ts';
import type { KubeClient } from '../../../controller/kube/client.ts';
import { keyOf } from '../../../controller/reconcile/names.ts';

/** Carries a request to where it takes effect, and the answer back, or loses either. */
export type Send = <T>(words: string, effect: () => T, lost: () => Error) => Promise<T>;

interface Operation {
  op: string;
  path: string;
  value: unknown;
}

/** A model of the API server: CiJobs with versions, guarded patches, finalizers, and watches that lag behind. */
export class ModelApi {
  readonly jobs = new Map<string, CiJob>();
  /** Every status that was ever stored, by uid, in order. */
  readonly history = new Map<string, CiJobStatus[]>();
  readonly writes: string[] = [];
  readonly watches = new Set<Watch>();
  #version = 0;

  put(job: CiJob): CiJob {
    this.#version += 1;
    const stored = { ...job, metadata: { ...job.metadata, resourceVersion: String(this.#version) } };
    const key = keyOf(job.metadata);
    this.jobs.set(key, stored);
    if (stored.status) {
      const history = this.history.get(job.metadata.uid) ?? [];
      if (JSON.stringify(history.at(-1)) !== JSON.stringify(stored.status)) history.push(stored.status);
      this.history.set(job.metadata.uid, history);
    }
    const gone = stored.metadata.deletionTimestamp !== undefined && !stored.metadata.finalizers?.length;
    if (gone) this.jobs.delete(key);
    for (const watch of this.watches) watch.push(key, gone ? undefined : stored);
    return stored;
  }

  /** What a user does to a spec. */
  change(key: string, spec: Partial<CiJob['spec']>): boolean {
    const job = this.jobs.get(key);
    if (!job) return false;
    const generation = job.metadata.generation + 1;
    this.put({ ...job, metadata: { ...job.metadata, generation }, spec: { ...job.spec, ...spec } });
    return true;
  }

  annotate(key: string, annotations: Record<string, string>): void {
    const job = this.jobs.get(key);
    if (job) this.put({ ...job, metadata: { ...job.metadata, annotations } });
  }

  delete(key: string, now: number): boolean {
    const job = this.jobs.get(key);
    if (!job || job.metadata.deletionTimestamp !== undefined) return false;
    this.put({ ...job, metadata: { ...job.metadata, deletionTimestamp: new Date(now).toISOString() } });
    return true;
  }

  /** The part of a client that the controller's own store uses. */
  client(send: Send, now: () => number): KubeClient {
    const lost = () =>
      new ApiError('request', { status: 0, reason: 'NoAnswer', message: 'connection reset' });
    return {
      jsonPatch: (
        _resource: unknown,
        ref: { namespace?: string; name: string },
        patch: Operation[],
        options: { resourceVersion?: string; subresource?: string } = {},
      ) =>
        send(
          `write ${patch.map(inWords).join(' and ')} of ${ref.name}`,
          () => this.#patch(keyOf(ref), patch, options),
          lost,
        ),
      delete: (_resource: unknown, ref: { namespace?: string; name: string }) =>
        send(`delete ${ref.name}`, () => void this.delete(keyOf(ref), now()), lost),
      get: (_resource: unknown, ref: { name: string }) =>
        send(
          `read Secret ${ref.name}`,
          () => ({ data: { token: Buffer.from('secret').toString('base64') } }),
          lost,
        ),
    } as unknown as KubeClient;
  }

  #patch(
    key: string,
    patch: Operation[],
    options: { resourceVersion?: string; subresource?: string },
  ): CiJob {
    const job = this.jobs.get(key);
    if (!job) throw new ApiError('PATCH', { status: 404, reason: 'NotFound', message: key });
    const guard =
      patch.find(({ path }) => path === '/metadata/resourceVersion')?.value ?? options.resourceVersion;
    if (guard === undefined) throw new Error('a write without a guard');
    if (guard !== job.metadata.resourceVersion) {
      throw new ApiError('PATCH', { status: 409, reason: 'Conflict', message: `${key} has changed` });
    }
    let after = job;
    for (const { path, value } of patch) {
      if (path === '/status') after = { ...after, status: value as CiJobStatus };
      if (path === '/metadata/finalizers') {
        after = { ...after, metadata: { ...after.metadata, finalizers: value as string[] } };
      }
    }
    this.writes.push(`${key} ${options.subresource ?? 'metadata'}`);
    return this.put(after);
  }
}

/** One controller's watch: its copy of the jobs, and what is on its way to it. */
export class Watch {
  readonly copy: Map<string, CiJob>;
  readonly queue: [string, CiJob | undefined][] = [];
  readonly #onPush: () => void;

  /** Lists, and watches from there. `onPush` hears of everything that is on its way. */
  constructor(api: ModelApi, onPush: () => void = () => undefined) {
    this.#onPush = onPush;
    this.copy = new Map(api.jobs);
    api.watches.add(this);
  }

  push(key: string, job: CiJob | undefined): void {
    this.queue.push([key, job]);
    this.#onPush();
  }

  /** Takes in the next change. Returns whose it was. */
  next(): string | undefined {
    const [key, job] = this.queue.shift() ?? [];
    if (key === undefined) return undefined;
    if (job) this.copy.set(key, job);
    else this.copy.delete(key);
    return key;
  }
}

function inWords({ path, value }: Operation): string {
  if (path !== '/status') return path.slice(1);
  const { phase, host, failure, attempt } = value as CiJobStatus;
  return `status ${phase ?? ''} ${failure?.reason ?? ''} host=${host ?? 'none'} attempt=${attempt ?? 1}`;
}
