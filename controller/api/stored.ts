import type * as z from 'zod';
import { CiJob } from './cijob.ts';
import { CiJobStatus } from './cijob-status.ts';
import { ciJobResource, incusHostResource, resourceSchema } from './crd.ts';
import { IncusHost, IncusHostStatus } from './incushost.ts';
import { ObjectMeta } from './meta.ts';
import { problemsOf, type Problem } from './problem.ts';

/**
 * An object as the API server has it. Its schema may have changed since it was stored (a CRD replaced by an older
 * one): an object that no longer parses is told apart from none, so that it can be failed and cleaned up.
 */
export type Stored<T, Status> =
  | { ok: true; object: T }
  | {
      ok: false;
      metadata: ObjectMeta;
      /** What was last known of it, if that part can be read. */
      status: Status | undefined;
      problems: Problem[];
    };

/**
 * Reads a CiJob that the API server returned. Fields of `metadata` and `status` that we do not know are left out;
 * in `spec`, where they may change what the job means, they are problems.
 * @throws {TypeError} where not even `metadata` can be read: then it is no Kubernetes object.
 */
export function parseCiJob(object: unknown): Stored<CiJob, CiJobStatus> {
  return parseStored(object, CiJob, CiJobStatus, ciJobResource);
}

/** Reads an IncusHost that the API server returned, as {@link parseCiJob} does a CiJob. */
export function parseIncusHost(object: unknown): Stored<IncusHost, IncusHostStatus> {
  return parseStored(object, IncusHost, IncusHostStatus, incusHostResource);
}

function parseStored<T, Status>(
  object: unknown,
  schema: z.ZodType<T>,
  statusSchema: z.ZodType<Status>,
  resource: Parameters<typeof resourceSchema>[0],
): Stored<T, Status> {
  const result = schema.safeParse(object);
  if (result.success) return { ok: true, object: result.data };
  const { metadata, status } = (object ?? {}) as { metadata?: unknown; status?: unknown };
  const meta = ObjectMeta.safeParse(metadata);
  if (!meta.success) throw new TypeError('not a Kubernetes object: its metadata cannot be read');
  return {
    ok: false,
    metadata: meta.data,
    status: statusSchema.safeParse(status).data,
    problems: problemsOf(result.error, object, resourceSchema(resource)).map(({ path, message }) => ({
      path,
      message,
    })),
  };
}
