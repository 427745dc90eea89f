/** An object as the fake API server keeps it. */
export interface FakeObject {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    generation?: number;
    creationTimestamp?: string;
    deletionTimestamp?: string;
    finalizers?: string[];
    [field: string]: unknown;
  };
  status?: unknown;
  [field: string]: unknown;
}

export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: object;
}

interface Ref {
  namespace?: string;
  name: string;
}

/** A request the API server refuses. */
export class StatusError extends Error {
  readonly code: number;
  readonly body: object;

  constructor(code: number, reason: string, message: string) {
    super(message);
    this.code = code;
    this.body = { kind: 'Status', apiVersion: 'v1', status: 'Failure', code, reason, message };
  }
}

/**
 * What an API server does with objects: versions, history, finalizers, the status subresource, optimistic locking.
 * Collections are `group/version/plural`. It can be written to directly, as another client of the cluster would.
 */
export class FakeApiStore {
  readonly #objects = new Map<string, Map<string, FakeObject>>();
  readonly #watchers = new Set<{
    collection: string;
    namespace?: string;
    send: (event: WatchEvent) => void;
  }>();
  #history: { version: number; collection: string; event: WatchEvent }[] = [];
  #version = 100;
  #compacted = 0;
  #uids = 0;

  /** The newest resource version. */
  get version(): number {
    return this.#version;
  }

  /** How many watches are open. */
  get watchers(): number {
    return this.#watchers.size;
  }

  create(collection: string, object: FakeObject): FakeObject {
    if (this.#of(collection).has(key(object.metadata))) {
      throw new StatusError(409, 'AlreadyExists', `${object.metadata.name} already exists`);
    }
    const uid = `uid-${++this.#uids}`;
    const metadata = { ...object.metadata, uid, generation: 1, creationTimestamp: '2026-01-01T00:00:00Z' };
    return this.#write(collection, 'ADDED', { ...object, metadata });
  }

  get(collection: string, ref: Ref): FakeObject {
    const object = this.#of(collection).get(key(ref));
    if (!object) throw new StatusError(404, 'NotFound', `${key(ref)} not found`);
    return structuredClone(object);
  }

  replace(collection: string, ref: Ref, body: FakeObject, subresource?: string): FakeObject {
    const before = this.get(collection, ref);
    const { resourceVersion } = body.metadata;
    if (resourceVersion !== undefined && resourceVersion !== before.metadata.resourceVersion) {
      throw new StatusError(409, 'Conflict', `${key(ref)} has been modified`);
    }
    const { uid, generation, creationTimestamp } = before.metadata;
    const metadata = {
      ...body.metadata,
      ...ref,
      uid,
      generation,
      creationTimestamp,
    } as FakeObject['metadata'];
    if (subresource === 'status')
      return this.#write(collection, 'MODIFIED', { ...before, status: body.status });
    const after: FakeObject = { ...body, metadata, status: before.status };
    if (JSON.stringify(after['spec']) !== JSON.stringify(before['spec']))
      metadata.generation = (generation ?? 0) + 1;
    const gone = metadata.deletionTimestamp !== undefined && (metadata.finalizers ?? []).length === 0;
    return this.#write(collection, gone ? 'DELETED' : 'MODIFIED', after);
  }

  /** A merge patch; of an apply patch, what differs from it does not matter here. Apply creates what is missing. */
  patch(
    collection: string,
    ref: Ref,
    patch: object,
    subresource: string | undefined,
    type: string,
  ): FakeObject {
    if (type.includes('json-patch')) throw new StatusError(415, 'UnsupportedMediaType', 'no JSON patch here');
    const missing = !this.#of(collection).has(key(ref));
    if (missing && type.includes('apply')) return this.create(collection, { ...patch, metadata: { ...ref } });
    const before = this.get(collection, ref);
    return this.replace(collection, ref, merge(before, patch) as FakeObject, subresource);
  }

  delete(
    collection: string,
    ref: Ref,
    preconditions: { uid?: string; resourceVersion?: string } = {},
  ): FakeObject {
    const before = this.get(collection, ref);
    for (const [field, wanted] of Object.entries(preconditions)) {
      if (before.metadata[field] !== wanted) throw new StatusError(409, 'Conflict', `${field} differs`);
    }
    if ((before.metadata.finalizers ?? []).length === 0) return this.#write(collection, 'DELETED', before);
    if (before.metadata.deletionTimestamp !== undefined) return before;
    before.metadata.deletionTimestamp = '2026-01-01T00:00:00Z';
    return this.#write(collection, 'MODIFIED', before);
  }

  list(collection: string, namespace: string | undefined, limit: number, token?: string): object {
    const [version, offset] = (token ?? `${this.#version}:0`).split(':').map(Number) as [number, number];
    if (version < this.#compacted) throw new StatusError(410, 'Expired', 'the continue token is too old');
    const all = [...this.#of(collection).values()].filter((one) => within(one, namespace));
    const end = limit > 0 ? offset + limit : all.length;
    const more = end < all.length ? { continue: `${version}:${end}` } : {};
    return {
      kind: 'List',
      metadata: { resourceVersion: String(version), ...more },
      items: structuredClone(all.slice(offset, end)),
    };
  }

  /** Sends what happened after `from`, and what happens; returns how to stop it. */
  watch(
    collection: string,
    namespace: string | undefined,
    from: number,
    send: (event: WatchEvent) => void,
  ): () => void {
    if (from < this.#compacted) throw new StatusError(410, 'Expired', 'too old resource version');
    const watcher = { collection, ...(namespace !== undefined && { namespace }), send };
    for (const past of this.#history) {
      if (past.version > from && past.collection === collection && within(past.event.object, namespace)) {
        send(past.event);
      }
    }
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Tells every watcher the newest version. */
  bookmark(): void {
    const object = { metadata: { resourceVersion: String(this.#version) } };
    for (const { send } of this.#watchers) send({ type: 'BOOKMARK', object });
  }

  /** Forgets the history, so that watches and continue tokens from before now are refused with 410. */
  compact(): void {
    this.#history = [];
    this.#compacted = ++this.#version;
  }

  #of(collection: string): Map<string, FakeObject> {
    const objects = this.#objects.get(collection) ?? new Map<string, FakeObject>();
    this.#objects.set(collection, objects);
    return objects;
  }

  #write(collection: string, type: WatchEvent['type'], object: FakeObject): FakeObject {
    const version = ++this.#version;
    const stored = structuredClone(object);
    stored.metadata.resourceVersion = String(version);
    if (type === 'DELETED') this.#of(collection).delete(key(stored.metadata));
    else this.#of(collection).set(key(stored.metadata), stored);
    const event = { type, object: structuredClone(stored) };
    this.#history.push({ version, collection, event });
    for (const watcher of this.#watchers) {
      if (watcher.collection === collection && within(stored, watcher.namespace)) watcher.send(event);
    }
    return structuredClone(stored);
  }
}

const key = ({ namespace, name }: Ref): string => `${namespace ?? ''}/${name}`;

function within(object: object, namespace: string | undefined): boolean {
  return namespace === undefined || (object as FakeObject).metadata.namespace === namespace;
}

/** RFC 7386. */
function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) result[field] = undefined;
    else if (value !== undefined) result[field] = merge(result[field], value);
  }
  return JSON.parse(JSON.stringify(result)) as unknown;
}
