import * as z from 'zod';
import { Condition } from './conditions.ts';
import { apiVersion, ObjectMeta } from './meta.ts';
import { absolutePath, matchLabels, objectName, secretKey, size } from './text.ts';

export const defaultSocketPath = '/var/lib/incus/unix.socket';

const exactlyOne = (a: string, b: string) => ({
  'x-kubernetes-validations': [
    { rule: `has(self.${a}) != has(self.${b})`, message: `exactly one of ${a} and ${b} must be set` },
  ],
});

export const SshConnection = z.strictObject({
  address: z
    .string()
    .min(1)
    .max(253)
    .regex(/^[A-Za-z0-9:]([A-Za-z0-9.:-]*[A-Za-z0-9:])?$/, 'must be a host name or an IP address')
    .describe('Host name or IP address.'),
  port: z.int().min(1).max(65535).default(22).describe('TCP port of sshd.'),
  user: z
    .string()
    .min(1)
    .max(32)
    .regex(/^[a-z_][a-z0-9_-]*$/, 'must be a user name')
    .describe('User to log in as.'),
  privateKeySecretRef: z
    .strictObject({ name: objectName, key: secretKey })
    .describe(
      "The private key: a key of a Secret in the controller's own namespace. Read again at every connect.",
    ),
  hostKeys: z
    .array(
      z
        .string()
        .min(1)
        .max(2048)
        .regex(
          /^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\x00-\x1f]*)?$/,
          'must be a public key such as "ssh-ed25519 AAAA…"',
        ),
    )
    .min(1)
    .max(8)
    .meta({ 'x-kubernetes-list-type': 'set' })
    .describe(
      'The public host keys to accept, as ssh-keyscan prints them without the host name. Any other key is refused.',
    ),
  via: z
    .enum(['Socket', 'Sudo'])
    .default('Socket')
    .describe(
      "Socket: Incus's unix socket, forwarded by SSH. Sudo: `sudo -n incus query`, for users outside incus-admin.",
    ),
  socketPath: absolutePath
    .default(defaultSocketPath)
    .describe("Path of Incus's unix socket on that machine."),
});
export type SshConnection = z.infer<typeof SshConnection>;

export const IncusHostSpec = z.strictObject({
  connection: z
    .strictObject({
      ssh: SshConnection.optional().describe('Reach Incus through SSH.'),
      local: z
        .strictObject({
          socketPath: absolutePath.default(defaultSocketPath).describe("Path of Incus's unix socket."),
        })
        .optional()
        .describe('Incus on the machine where the controller runs.'),
    })
    .refine((connection) => (connection.ssh === undefined) !== (connection.local === undefined), {
      message: 'exactly one of ssh and local must be set',
    })
    .meta(exactlyOne('ssh', 'local'))
    .describe('How to reach the Incus server.'),
  project: z
    .string()
    .min(1)
    .max(63)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/)
    .default('default')
    .describe('Incus project that holds the instances. It should be a restricted one.'),
  storagePool: z
    .string()
    .min(1)
    .max(63)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/)
    .default('default')
    .describe('Storage pool of the root disks.'),
  capacity: z
    .strictObject({
      instances: z.int().min(0).max(10000).describe('Slots: how many instances may exist at once.'),
      cpu: z.int().min(1).max(100000).optional().describe('Sum of the CPUs of all instances.'),
      memory: size.optional().describe('Sum of the memory of all instances.'),
    })
    .describe('How much of the host jobs may take.'),
  maxConcurrentStarts: z
    .int()
    .min(1)
    .max(256)
    .default(4)
    .describe('How many instances may be created at once.'),
  allowedSources: z
    .array(absolutePath)
    .max(32)
    .default([])
    .meta({ 'x-kubernetes-list-type': 'set' })
    .describe(
      'Directories inside which the sources of mounts must lie, after symbolic links. Empty: no mounts.',
    ),
  allowedNamespaces: z
    .strictObject({
      all: z.literal(true).optional().describe('Admit every namespace.'),
      matchLabels: matchLabels.optional().describe('Admit the namespaces with these labels.'),
    })
    .refine((allowed) => (allowed.all === undefined) !== (allowed.matchLabels === undefined), {
      message: 'exactly one of all and matchLabels must be set',
    })
    .meta(exactlyOne('all', 'matchLabels'))
    .describe('Whose CiJobs the host runs.'),
  unschedulable: z.boolean().default(false).describe('Admit no new job. Jobs that run go on.'),
});
export type IncusHostSpec = z.infer<typeof IncusHostSpec>;

/** The types of an IncusHost's conditions, in the order in which they are listed. */
export const incusHostConditions = [
  'Reachable',
  'IncusResponding',
  'Restricted',
  'Schedulable',
  'Ready',
  'Reconciling',
  'Stalled',
] as const;
export type IncusHostCondition = (typeof incusHostConditions)[number];

export const IncusHostStatus = z.strictObject({
  observedGeneration: z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  incus: z
    .strictObject({
      version: z.string().max(64),
      instanceTypes: z.array(z.enum(['Container', 'VirtualMachine'])).max(2),
      project: z.string().max(63),
    })
    .optional()
    .describe('What the Incus server said of itself.'),
  instances: z
    .strictObject({ used: z.int().min(0).max(1000000), capacity: z.int().min(0).max(10000) })
    .optional()
    .describe('Slots in use.'),
  observedAt: z.iso
    .datetime()
    .meta({ format: 'date-time' })
    .optional()
    .describe('When all of this was last listed.'),
  conditions: z
    .array(Condition)
    .max(32)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] }),
});
export type IncusHostStatus = z.infer<typeof IncusHostStatus>;

/** An Incus server that runs CiJobs. */
export const IncusHost = z.object({
  apiVersion: z.literal(apiVersion),
  kind: z.literal('IncusHost'),
  metadata: ObjectMeta,
  spec: IncusHostSpec,
  status: IncusHostStatus.optional(),
});
export type IncusHost = z.infer<typeof IncusHost>;
