import * as z from 'zod';
import { Condition } from './conditions.ts';
import { apiVersion, ObjectMeta } from './meta.ts';
import { mountPath, mountRoots, reservedGuestPaths } from './mounts.ts';
import { absolutePath, matchLabels, objectName, publicKey, secretKey, size } from './text.ts';

export const defaultSocketPath = '/var/lib/incus/unix.socket';

const unique = (names: readonly string[]) => new Set(names).size === names.length;

/** A name, or the beginning of names with a `*` at its end. */
const pattern = (max: number, form: RegExp) =>
  z
    .string()
    .min(1)
    .max(max)
    .regex(form, 'must be a name, the beginning of names with "*" at its end, or "*"');

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
    .describe('Host name or IP address of the machine.'),
  port: z.int().min(1).max(65535).default(22).describe('TCP port of sshd.'),
  user: z
    .string()
    .min(1)
    .max(32)
    .regex(/^[a-z_][a-z0-9._-]*$/, 'must be a user name')
    .describe('User to log in as. It needs access to the Incus socket, or the sudo rule of via: Sudo.'),
  privateKeySecretRef: z
    .strictObject({
      name: objectName.describe("Name of a Secret in the controller's own namespace."),
      key: secretKey.describe("The key in the Secret's data, such as id_ed25519."),
    })
    .describe(
      'The private key to log in with. It is read again at every connect, so it can be replaced at any time.',
    ),
  hostKeys: z
    .array(publicKey)
    .min(1)
    .max(8)
    .refine(unique, 'must not name a key twice')
    .meta({ 'x-kubernetes-list-type': 'set' })
    .describe(
      'The public host keys to accept, such as "ssh-ed25519 AAAA…": what ssh-keyscan prints, without the host name. Any other key is refused.',
    ),
  via: z
    .enum(['Socket', 'Sudo'])
    .default('Socket')
    .describe(
      "Socket: Incus's unix socket, forwarded by SSH. Sudo: the same socket through sudo -n socat, for users outside the group incus-admin.",
    ),
  maxSessions: z
    .int()
    .min(10)
    .max(1024)
    .default(10)
    .describe(
      'MaxSessions of that sshd for this user. Through Sudo every stream is a session, so that it decides how many logs can be followed while they are written: one with the default of sshd, 10, and one more for each 3 above.',
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
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'must be the name of a project')
    .default('default')
    .describe(
      'Incus project that holds the instances. It should be a restricted one, see the condition Restricted.',
    ),
  storagePool: z
    .string()
    .min(1)
    .max(63)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'must be the name of a storage pool')
    .default('default')
    .describe('Storage pool of the root disks.'),
  capacity: z
    .strictObject({
      instances: z.int().min(0).max(10000).describe('Slots: how many instances may exist at once.'),
      cpu: z
        .int()
        .min(1)
        .max(100000)
        .optional()
        .describe(
          'CPUs for all instances together, and the most that one may ask for. The default is to share them: one instance may ask for as many as the machine has, and at least for the 2 of a job that does not say, and all together for more.',
        ),
      memory: size
        .optional()
        .describe(
          'Memory for all instances together, such as 64GiB. The default is nine tenths of what the machine has, and at least the 4GiB of one job that does not say.',
        ),
    })
    .describe(
      'How much of the host jobs may take. Only our own instances are counted: set it lower where the machine does other work.',
    ),
  maxConcurrentStarts: z
    .int()
    .min(1)
    .max(256)
    .default(4)
    .describe('How many instances may be created at once.'),
  allowedSources: z
    .array(absolutePath)
    .max(32)
    .refine(unique, 'must not name a directory twice')
    .default([])
    .meta({ 'x-kubernetes-list-type': 'set' })
    .describe(
      'Directories of the host inside which the sources of mounts must lie, as they are written and once symbolic links are followed. The default is none: jobs with mounts are not run here.',
    ),
  allowedMountPaths: z
    .array(mountPath)
    .max(32)
    .refine(unique, 'must not name a path twice')
    .default([])
    .meta({ 'x-kubernetes-list-type': 'set' })
    .describe(
      `More paths in the guest on or below which jobs may mount, such as /cache. Every host allows ${mountRoots.join(', ')}, and none allows ${reservedGuestPaths.join(', ')}. What root runs or reads in the guest must not be below a path named here: with /nix/store, a job is as good as root in a guest of NixOS. The default is no more.`,
    ),
  allowedImages: z
    .array(pattern(255, /^([*]|[A-Za-z0-9][A-Za-z0-9._/+-]*[*]?)$/))
    .max(64)
    .refine(unique, 'must not name an image twice')
    .default(['*'])
    .meta({ 'x-kubernetes-list-type': 'set' })
    .describe(
      'Images that jobs may use: aliases or fingerprints as jobs write them, or beginnings of these that end in "*". The default is any image that the project has.',
    ),
  allowedProfiles: z
    .array(pattern(64, /^([*]|[A-Za-z0-9][A-Za-z0-9._-]*[*]?)$/))
    .max(64)
    .refine(unique, 'must not name a profile twice')
    .default(['default'])
    .meta({ 'x-kubernetes-list-type': 'set' })
    .describe(
      'Profiles that jobs may use: names, or beginnings of names that end in "*". The default is the profile default alone.',
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
  unschedulable: z
    .boolean()
    .default(false)
    .describe('While true no new job is admitted. Running jobs continue.'),
});
export type IncusHostSpec = z.infer<typeof IncusHostSpec>;

/** The types of an IncusHost's conditions, in the order in which they are listed. */
export const incusHostConditions = [
  'Reachable',
  'IncusResponding',
  'Restricted',
  'RootDiskEnforced',
  'Isolated',
  'Schedulable',
  'Ready',
  'Reconciling',
  'Stalled',
] as const;
export type IncusHostCondition = (typeof incusHostConditions)[number];

export const IncusHostStatus = z.object({
  observedGeneration: z
    .int()
    .min(0)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .describe('The metadata.generation that this status is about.'),
  incus: z
    .object({
      version: z.string().max(64).describe('Version of Incus.'),
      instanceTypes: z
        .array(z.enum(['Container', 'VirtualMachine']))
        .max(2)
        .meta({ 'x-kubernetes-list-type': 'set' })
        .describe('What it can run. Virtual machines need KVM.'),
      project: z.string().max(63).describe('The project in use.'),
    })
    .optional()
    .describe('What the Incus server said of itself.'),
  instances: z
    .object({
      used: z.int().min(0).max(1000000).describe('How many instances there are.'),
      capacity: z.int().min(0).max(10000).describe('How many there may be.'),
    })
    .optional()
    .describe('Slots in use.'),
  capacity: z
    .object({
      cpu: z.int().min(0).max(1000000).optional().describe('CPUs that one instance may ask for.'),
      memory: z.string().max(32).optional().describe('Memory for all instances together.'),
      rootDisk: z.string().max(32).optional().describe('Size of the largest root disk that one may ask for.'),
    })
    .optional()
    .describe(
      'How much jobs may take: what spec.capacity says, otherwise what the machine and the storage pool have. What is missing is not limited.',
    ),
  observedAt: z.iso
    .datetime()
    .meta({ format: 'date-time' })
    .optional()
    .describe('When all of this was last listed.'),
  conditions: z
    .array(Condition)
    .max(32)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
    .describe(
      `What is known about the host, by the types ${incusHostConditions.join(', ')}. What Incus itself enforces is in Restricted (no mounts beyond allowedSources), RootDiskEnforced (no root disk beyond its size) and Isolated (no way from guests to each other, private networks and the addresses of the host that the ACLs name, nor to guests from elsewhere).`,
    ),
});
export type IncusHostStatus = z.infer<typeof IncusHostStatus>;

/** An Incus server that runs CiJobs. */
export const IncusHost = z
  .object({
    apiVersion: z.literal(apiVersion),
    kind: z.literal('IncusHost'),
    metadata: ObjectMeta,
    spec: IncusHostSpec.describe('How to reach the host, and what jobs may take of it.'),
    status: IncusHostStatus.optional().describe('What the host looks like. Written by the controller.'),
  })
  .describe('An IncusHost is an Incus server that runs CiJobs.');
export type IncusHost = z.infer<typeof IncusHost>;
