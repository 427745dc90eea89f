import type * as z from 'zod';

/** A kind of object of the API server, and how we read one. */
export interface Resource<T> {
  /** API group; empty for the core group. */
  group: string;
  version: string;
  /** Name in the URL, such as `leases`. */
  plural: string;
  /** What we read of an object. The rest is dropped, and so kept out of memory. */
  schema: z.ZodType<T>;
}

/** Names one object; cluster-scoped objects have no namespace. */
export interface ObjectRef {
  namespace?: string | undefined;
  name: string;
}

/** The key of an object in stores and queues: `namespace/name`, or `name` for cluster-scoped ones, as in client-go. */
export function keyOf(ref: ObjectRef): string {
  return ref.namespace ? `${ref.namespace}/${ref.name}` : ref.name;
}

/** The object a key of {@link keyOf} stands for. */
export function refOf(key: string): ObjectRef {
  const slash = key.indexOf('/');
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/** URL path of a collection, in one namespace or in all. */
export function collectionPath(resource: Resource<unknown>, namespace?: string): string {
  const root = resource.group ? `/apis/${resource.group}` : '/api';
  const scope = namespace ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return `${root}/${resource.version}${scope}/${resource.plural}`;
}

/** URL path of one object, or of its subresource. */
export function objectPath(resource: Resource<unknown>, ref: ObjectRef, subresource?: string): string {
  const path = `${collectionPath(resource, ref.namespace)}/${encodeURIComponent(ref.name)}`;
  return subresource ? `${path}/${subresource}` : path;
}
