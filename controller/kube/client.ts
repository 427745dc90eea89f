import type { IncomingMessage } from 'node:http';
import * as z from 'zod';
import { ApiError } from './api-error.ts';
import { collectionPath, objectPath, type ObjectRef, type Resource } from './resource.ts';
import type { ApiRequest, Transport } from './transport.ts';

/** How long a silence, and until when, a request may wait. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
}

export interface WriteOptions extends CallOptions {
  subresource?: 'status';
  /** Refuses the write with reason `Conflict` unless the object is still at this version. */
  resourceVersion?: string | undefined;
}

/** Which objects of a resource: of one namespace, or of all when none is given. */
export interface ListQuery {
  namespace?: string | undefined;
  labelSelector?: string | undefined;
  fieldSelector?: string | undefined;
}

export interface ListPage {
  /** The objects as they came, to be parsed one by one. */
  items: unknown[];
  resourceVersion: string;
  /** Token for the next page; absent on the last one. */
  continue?: string | undefined;
}

const List = z.object({
  metadata: z.object({ resourceVersion: z.string(), continue: z.string().optional() }),
  // Go writes an empty slice as null in places.
  items: z
    .array(z.unknown())
    .nullish()
    .transform((items) => items ?? []),
});

/** The owner of the fields we write, in managedFields. */
const fieldManager = 'cijob-controller';

/**
 * The API server, in the few calls we need; each is one round trip over a connection that is kept. All of them throw
 * {@link ApiError}, or the signal's reason.
 */
export class KubeClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  get<T>(resource: Resource<T>, ref: ObjectRef, options: CallOptions = {}): Promise<T> {
    return this.#call(resource, { ...options, method: 'GET', path: objectPath(resource, ref) });
  }

  /** One page of a list. */
  async list(
    resource: Resource<unknown>,
    query: ListQuery,
    page: { limit?: number; continue?: string | undefined },
    options: CallOptions = {},
  ): Promise<ListPage> {
    const { namespace, ...selectors } = query;
    const path = collectionPath(resource, namespace);
    const answer = await this.#transport.json({
      ...options,
      method: 'GET',
      path,
      query: { ...selectors, ...page },
      maxBytes: 256 * 2 ** 20,
    });
    const { metadata, items } = parse(List, answer, `GET ${path}`);
    return { items, resourceVersion: metadata.resourceVersion, continue: metadata.continue || undefined };
  }

  /** Opens a watch: JSON lines from `resourceVersion` on, until the server ends it after `timeoutSeconds`. */
  watch(
    resource: Resource<unknown>,
    query: ListQuery,
    from: { resourceVersion: string; timeoutSeconds: number },
    options: CallOptions = {},
  ): Promise<IncomingMessage> {
    const { namespace, ...selectors } = query;
    return this.#transport.stream({
      ...options,
      method: 'GET',
      path: collectionPath(resource, namespace),
      query: { ...selectors, ...from, watch: true, allowWatchBookmarks: true },
    });
  }

  /** Creates an object; reason `AlreadyExists` when the name is taken. */
  create<T>(
    resource: Resource<T>,
    namespace: string | undefined,
    body: object,
    options: CallOptions = {},
  ): Promise<T> {
    const path = collectionPath(resource, namespace);
    return this.#call(resource, { ...options, method: 'POST', path, body, query: { fieldManager } });
  }

  /** Replaces an object. Its `metadata.resourceVersion` is the guard: `Conflict` when somebody was quicker. */
  replace<T>(resource: Resource<T>, ref: ObjectRef, body: object, options: CallOptions = {}): Promise<T> {
    const path = objectPath(resource, ref);
    return this.#call(resource, { ...options, method: 'PUT', path, body, query: { fieldManager } });
  }

  /**
   * JSON merge patch (RFC 7386). It replaces lists whole, so give `resourceVersion` where the patch holds one that
   * others write too, such as finalizers and conditions.
   */
  mergePatch<T>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: object,
    options: WriteOptions = {},
  ): Promise<T> {
    const { resourceVersion } = options;
    const metadata = 'metadata' in patch ? (patch.metadata as object) : {};
    const body =
      resourceVersion === undefined ? patch : { ...patch, metadata: { ...metadata, resourceVersion } };
    return this.#patch(resource, ref, 'application/merge-patch+json', body, options);
  }

  /** JSON patch (RFC 6902). A failed `test` of its own has the reason `Invalid`. */
  jsonPatch<T>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: object[],
    options: WriteOptions = {},
  ): Promise<T> {
    // Naming a version makes the API server compare it; a `test` would fail as Invalid, like a mistake of ours.
    const guard = { op: 'replace', path: '/metadata/resourceVersion', value: options.resourceVersion };
    const body = options.resourceVersion === undefined ? patch : [guard, ...patch];
    return this.#patch(resource, ref, 'application/json-patch+json', body, options);
  }

  /** Deletes the object if it still is the one meant: `NotFound` when it is gone, `Conflict` when it is another. */
  async delete(
    resource: Resource<unknown>,
    ref: ObjectRef,
    preconditions: { uid?: string; resourceVersion?: string } = {},
    options: CallOptions = {},
  ): Promise<void> {
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy: 'Background', preconditions };
    await this.#transport.json({ ...options, method: 'DELETE', path: objectPath(resource, ref), body });
  }

  #patch<T>(
    resource: Resource<T>,
    ref: ObjectRef,
    contentType: string,
    body: object,
    options: WriteOptions,
  ): Promise<T> {
    const { subresource, signal, timeoutMs } = options;
    const path = objectPath(resource, ref, subresource);
    return this.#call(resource, {
      signal,
      timeoutMs,
      method: 'PATCH',
      path,
      contentType,
      body,
      query: { fieldManager },
    });
  }

  async #call<T>(resource: Resource<T>, request: ApiRequest): Promise<T> {
    return parse(resource.schema, await this.#transport.json(request), `${request.method} ${request.path}`);
  }
}

function parse<T>(schema: z.ZodType<T>, value: unknown, request: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  // Names what is wrong, never the value: the object may be a Secret.
  const message = result.error.issues.map(({ path, code }) => `${path.join('.')}: ${code}`).join('; ');
  throw new ApiError(request, { status: 200, reason: 'InvalidResponse', message });
}
