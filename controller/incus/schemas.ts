import * as z from 'zod';

/*
 * What we read of Incus's answers (https://linuxcontainers.org/incus/docs/main/rest-api-spec/). Only the named fields
 * survive parsing, so nothing else of a hostile or future answer stays in memory.
 */

/** Envelope of every answer: https://linuxcontainers.org/incus/docs/main/rest-api/#return-values. */
export const Envelope = z.object({
  type: z.enum(['sync', 'async', 'error']),
  operation: z.string().optional(),
  error: z.string().optional(),
  error_code: z.int().optional(),
  metadata: z.unknown(),
});
export type Envelope = z.infer<typeof Envelope>;

const stringMap = z.record(z.string(), z.string());

export const Instance = z.object({
  name: z.string(),
  type: z.enum(['container', 'virtual-machine']),
  status: z.string(),
  config: stringMap.default({}),
  devices: z.record(z.string(), stringMap).default({}),
  profiles: z.array(z.string()).default([]),
  created_at: z.string().optional(),
  /** The epoch until the instance is started for the first time. */
  last_used_at: z.string().default('1970-01-01T00:00:00Z'),
});
export type Instance = z.infer<typeof Instance>;

export const Operation = z.object({
  id: z.string(),
  /** `task`, or `websocket` for one that somebody is attached to. */
  class: z.string().default('task'),
  description: z.string().default(''),
  created_at: z.string(),
  status: z.string(),
  status_code: z.int(),
  resources: z.record(z.string(), z.array(z.string())).nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
  err: z.string().default(''),
});
export type Operation = z.infer<typeof Operation>;

/** Operations as listed: by lower-case status. */
export const OperationList = z.record(z.string(), z.array(Operation));

export const Server = z.object({
  environment: z.object({
    server_version: z.string(),
    /** `lxc`, `qemu`, or `lxc | qemu`: which instance types the server can run. */
    driver: z.string(),
  }),
  api_extensions: z.array(z.string()).default([]),
  auth: z.string().default('untrusted'),
});
export type Server = z.infer<typeof Server>;

export const Project = z.object({ name: z.string(), config: stringMap.default({}) });
export type Project = z.infer<typeof Project>;

export const StoragePool = z.object({ name: z.string(), driver: z.string() });
export type StoragePool = z.infer<typeof StoragePool>;

/** Of a storage pool: what its file system or volume group has. */
export const StoragePoolResources = z.object({ space: z.object({ total: z.number().min(0) }) });

/** Of the machine. */
export const Resources = z.object({
  cpu: z.object({ total: z.number().min(0) }),
  memory: z.object({ total: z.number().min(0) }),
});
export type Resources = z.infer<typeof Resources>;

export const Profile = z.object({ name: z.string(), devices: z.record(z.string(), stringMap).default({}) });
export type Profile = z.infer<typeof Profile>;

/** A network, or an interface of the host that Incus does not manage. */
export const Network = z.object({
  name: z.string(),
  type: z.string().default(''),
  managed: z.boolean().default(false),
  config: stringMap.nullish().transform((config) => config ?? {}),
});
export type Network = z.infer<typeof Network>;

/** A rule of a network ACL. What is empty stands for anything. */
export const NetworkAclRule = z.object({
  action: z.string(),
  state: z.string().default('enabled'),
  source: z.string().default(''),
  destination: z.string().default(''),
  protocol: z.string().default(''),
  source_port: z.string().default(''),
  destination_port: z.string().default(''),
});
export type NetworkAclRule = z.infer<typeof NetworkAclRule>;
const NetworkAclRules = z
  .array(NetworkAclRule)
  .nullish()
  .transform((rules) => rules ?? []);
export const NetworkAcl = z.object({
  name: z.string(),
  egress: NetworkAclRules,
  ingress: NetworkAclRules,
});
export type NetworkAcl = z.infer<typeof NetworkAcl>;

export const ImageAlias = z.object({ target: z.string(), type: z.string() });
export const Image = z.object({ fingerprint: z.string(), type: z.string() });
export type Image = z.infer<typeof Image>;
export const InstanceState = z.object({ processes: z.int().default(0) });

export const LifecycleEvent = z.object({
  type: z.literal('lifecycle'),
  timestamp: z.string(),
  metadata: z.object({ action: z.string(), source: z.string(), name: z.string().optional() }),
});
export const OperationEvent = z.object({
  type: z.literal('operation'),
  timestamp: z.string(),
  metadata: Operation,
});
export const IncusEvent = z.discriminatedUnion('type', [LifecycleEvent, OperationEvent]);
export type IncusEvent = z.infer<typeof IncusEvent>;

/** Status codes of an operation: https://linuxcontainers.org/incus/docs/main/rest-api/#status-codes. */
export function operationEnded(operation: Operation): boolean {
  return operation.status_code >= 200;
}

export function operationSucceeded(operation: Operation): boolean {
  return operation.status_code === 200;
}

/** Name of the instance that an operation is about. */
export function instanceOf(operation: Operation): string | undefined {
  const path = operation.resources?.['instances']?.[0];
  return path?.split('?')[0]?.split('/').pop();
}
