import * as z from 'zod';

export const group = 'ci.pikaci.dev';
export const version = 'v1alpha1';
export const apiVersion = `${group}/${version}`;

/** The finalizer that keeps a CiJob until its instance is gone. */
export const instanceCleanupFinalizer = `${group}/instance-cleanup`;

/** On a CiJob that is being deleted: let go of it although its host cannot be seen. What is there stays there. */
export const forceCleanupAnnotation = `${group}/force-cleanup`;

/** On a CiJob: do not keep the instance of the failed job any longer, whatever else says so. */
export const releaseAnnotation = `${group}/release`;

/** On a CiJob: keep the instance until that time (RFC 3339) if the job fails, whatever its spec says. */
export const holdUntilAnnotation = `${group}/hold-until`;

/** On a CiJob that `cijob retry` made: the name of the one it was made from. */
export const retryOfAnnotation = `${group}/retry-of`;

/** Label of a CiJob: what it is a run of, for the metrics. Only lanes that the controller was told are told apart. */
export const laneLabel = `${group}/lane`;
/** On a CiJob, set by whoever creates it: the W3C `traceparent` of the span that the job is a part of. */
export const traceparentAnnotation = `${group}/traceparent`;

/** The part of `metav1.ObjectMeta` that we read. Everything else is kept out of memory. */
export const ObjectMeta = z.object({
  name: z.string(),
  namespace: z.string().optional(),
  uid: z.string(),
  resourceVersion: z.string().optional(),
  generation: z.int().default(1),
  creationTimestamp: z.string(),
  deletionTimestamp: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
  finalizers: z.array(z.string()).optional(),
});
export type ObjectMeta = z.infer<typeof ObjectMeta>;
