import type { ObjectMeta } from '../api/meta.ts';
import { keyOf } from './resource.ts';

/** What every object we keep has. */
export interface Stored {
  metadata: Pick<ObjectMeta, 'name' | 'namespace' | 'uid' | 'resourceVersion'>;
}

/** Hears of every change: of an addition without `before`, of a deletion without `after`. */
export type OnChange<T> = (key: string, before: T | undefined, after: T | undefined) => void;

/**
 * The local copy of a collection, keyed by `namespace/name`. An object whose uid has changed is another object: it is
 * reported as a deletion and an addition, also when a watch or a list shows it as an update.
 */
export class ObjectStore<T extends Stored> {
  readonly #objects = new Map<string, T>();
  readonly #onChange: OnChange<T>;
  readonly #onError: (error: unknown) => void;

  /** @param onError Hears what `onChange` throws; the store is right nevertheless. */
  constructor(onChange: OnChange<T>, onError: (error: unknown) => void) {
    this.#onChange = onChange;
    this.#onError = onError;
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  values(): IterableIterator<T> {
    return this.#objects.values();
  }

  /** Adds or updates an object. The version it already has is no change. */
  put(object: T): void {
    const key = keyOf(object.metadata);
    const { uid, resourceVersion } = object.metadata;
    if (this.#objects.get(key)?.metadata.uid !== uid) this.remove(key);
    const before = this.#objects.get(key);
    if (before && resourceVersion !== undefined && before.metadata.resourceVersion === resourceVersion)
      return;
    this.#objects.set(key, object);
    this.#tell(key, before, object);
  }

  remove(key: string): void {
    const before = this.#objects.get(key);
    if (!this.#objects.delete(key)) return;
    this.#tell(key, before, undefined);
  }

  /** Removes all whose key is not among these, as a full list has shown. */
  keepOnly(keys: ReadonlySet<string>): void {
    for (const key of [...this.#objects.keys()]) if (!keys.has(key)) this.remove(key);
  }

  #tell(key: string, before: T | undefined, after: T | undefined): void {
    try {
      this.#onChange(key, before, after);
    } catch (error) {
      this.#onError(error);
    }
  }
}
