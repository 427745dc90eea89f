import * as z from 'zod';
import { CiJobStatus } from './cijob-status.ts';
import { apiVersion, ObjectMeta } from './meta.ts';
import { guestPath, mountPath, mountRoots, wellKnownMountPaths } from './mounts.ts';
import { atAdmission } from './stored.ts';
import { absolutePath, dnsLabel, glob, matchLabels, objectName, secretKey, size, text } from './text.ts';

/** A field that keeps the value it was created with. */
const immutable = { 'x-kubernetes-validations': [{ rule: 'self == oldSelf', message: 'is immutable' }] };

const unique = (names: readonly string[]) => new Set(names).size === names.length;

/** Variables that no job can have: the runner's, and those that bash sets itself and takes from nobody. */
const reservedNames = /^(PIKACI_INCUS_.*|BASHOPTS|BASH_VERSINFO|EUID|PPID|SHELLOPTS|UID)$/;
const reservedMessage = "is the runner's or one of bash's constants, which no environment can set";

export const EnvVar = z
  .strictObject({
    name: z
      .string()
      .min(1)
      .max(256)
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'must be a name a shell can export')
      .refine((name) => !reservedNames.test(name), { error: reservedMessage, ...atAdmission })
      .meta({
        'x-kubernetes-validations': [
          { rule: `!self.matches('${reservedNames.source}')`, message: reservedMessage },
        ],
      })
      .describe(
        'Name of the variable. Names that start with PIKACI_INCUS_ belong to the runner, and BASHOPTS, BASH_VERSINFO, EUID, PPID, SHELLOPTS and UID are constants of bash, which runs the command.',
      ),
    // 4 bytes a character and the name stay below the 128 KiB that Linux allows one variable.
    value: text(32000).optional().describe('The literal value: no shell and no controller expands it.'),
    valueFrom: z
      .strictObject({
        secretKeyRef: z
          .strictObject({
            name: objectName.describe("Name of a Secret in the CiJob's namespace."),
            key: secretKey.describe("The key in the Secret's data."),
          })
          .describe("A key of a Secret in the CiJob's namespace, which must not be the controller's own."),
      })
      .optional()
      .describe('Where the value comes from, instead of value.'),
  })
  .refine((env) => (env.value === undefined) !== (env.valueFrom === undefined), {
    message: 'exactly one of value and valueFrom must be set',
  })
  .meta({
    'x-kubernetes-validations': [
      {
        rule: 'has(self.value) != has(self.valueFrom)',
        message: 'exactly one of value and valueFrom must be set',
      },
    ],
  });
export type EnvVar = z.infer<typeof EnvVar>;

const wellKnownNames = Object.keys(wellKnownMountPaths);

export const Mount = z
  .strictObject({
    name: dnsLabel.max(40).describe(
      'Name of the mount, unique in the job. snapshot, workspace-deps and workspace-build have a path of their own: ' +
        `${Object.entries(wellKnownMountPaths)
          .map(([name, path]) => `${name} is ${path}`)
          .join(', ')}.`,
    ),
    source: absolutePath.describe(
      "Absolute path of a directory on the Incus host. It must lie inside one of the IncusHost's allowedSources, and so must what it leads to once symbolic links are followed.",
    ),
    path: mountPath
      .optional()
      .describe(
        `Absolute path in the guest where the source appears, read-only. Required unless the name has a path of its own. It must be on or below ${mountRoots.join(', ')}, or a path of the IncusHost's allowedMountPaths.`,
      ),
  })
  .refine((mount) => guestPath(mount) !== undefined, {
    path: ['path'],
    message: `is required unless the name is one of ${wellKnownNames.join(', ')}`,
  })
  .meta({
    'x-kubernetes-validations': [
      {
        rule: `has(self.path) || self.name in [${wellKnownNames.map((name) => `'${name}'`).join(', ')}]`,
        message: `path is required unless the name is one of ${wellKnownNames.join(', ')}`,
      },
    ],
  });
export type Mount = z.infer<typeof Mount>;

export const InstanceSpec = z.strictObject({
  type: z
    .enum(['VirtualMachine', 'Container'])
    .default('VirtualMachine')
    .describe(
      'VirtualMachine, or Container, which starts faster but shares the kernel of the Incus host. The host must support it.',
    ),
  image: z
    .string()
    .min(1)
    .max(255)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._/+-]*$/, 'must be an image alias or fingerprint')
    .describe(
      'Alias or fingerprint of an image that the Incus host already has, such as pikaci/dev. A missing image fails the job.',
    ),
  cpu: z.int().min(1).max(1024).default(2).describe('Number of CPUs (limits.cpu).'),
  memory: size
    .default('4GiB')
    .describe(
      'Memory, as Incus writes sizes: 512MiB, 4GiB (limits.memory). Not 4Gi, as Kubernetes writes them.',
    ),
  rootDisk: size
    .default('20GiB')
    .describe(
      'Size of the root disk. It is a limit, not a reservation, where the storage pool has quotas (not dir without them).',
    ),
  profiles: z
    .array(
      z
        .string()
        .min(1)
        .max(64)
        .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'must be the name of a profile'),
    )
    .max(16)
    .refine(unique, 'must not name a profile twice')
    .default(['default'])
    // Not a list-type set: their order matters (a later one wins), and immutability must see it.
    .meta({
      'x-kubernetes-list-type': 'atomic',
      'x-kubernetes-validations': [
        { rule: 'self.all(a, self.exists_one(b, a == b))', message: 'must not name a profile twice' },
      ],
    })
    .describe('Incus profiles to apply, in order: a later one wins.'),
});
export type InstanceSpec = z.infer<typeof InstanceSpec>;

export const CiJobSpec = z
  .strictObject({
    command: text(16384, 1)
      .meta(immutable)
      .describe(
        'What to run: one shell string, run once in the guest by bash --noprofile --norc -lc, in /workspace/snapshot. Its exit code decides: 0 is Complete, anything else Failed.',
      ),
    runAsRoot: z
      .boolean()
      .default(false)
      .meta(immutable)
      .describe("Run the command as the guest's root instead of as its user pikaci (1000:100)."),
    timeoutSeconds: z
      .int()
      .min(1)
      .max(604800)
      .default(3600)
      .meta(immutable)
      .describe(
        "The command's own time limit in seconds, enforced in the guest: TERM, then KILL 10 s later. The log survives it.",
      ),
    env: z
      .array(EnvVar)
      .max(128)
      .refine((list) => unique(list.map((env) => env.name)), 'must not name a variable twice')
      .default([])
      .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['name'], ...immutable })
      .describe('Environment variables of the command.'),
    instance: InstanceSpec.meta(immutable).describe(
      'The throw-away guest to make: a new Incus instance for each attempt, deleted when the attempt is over.',
    ),
    mounts: z
      .array(Mount)
      .max(16)
      .refine((list) => unique(list.map((mount) => mount.name)), 'must not name a mount twice')
      .refine(
        (list) => unique(list.map((mount) => guestPath(mount) ?? mount.name)),
        'must not mount two sources on one path',
      )
      .default([])
      .meta({
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
        'x-kubernetes-validations': [
          { rule: 'self == oldSelf', message: 'is immutable' },
          {
            rule: `self.all(m, self.exists_one(n, ${celGuestPath('m')} == ${celGuestPath('n')}))`,
            message: 'must not mount two sources on one path',
          },
        ],
      })
      .describe('Directories of the Incus host that the guest sees, always read-only.'),
    artifacts: z
      .array(glob)
      .max(32)
      .default([])
      .meta({ 'x-kubernetes-list-type': 'atomic', ...immutable })
      .describe(
        'Which of the files that the command left below /artifacts are kept, as one .tar.gz: globs relative to /artifacts, such as "reports/**/*.xml". "*" and "?" stand for characters other than "/", "**" as an element for any number of directories, "[a-z]" for one of these characters, "{a,b}" for either. A file is kept if one glob matches all of its path, a directory by "dir/**"; "./a" is "a". Only regular files that are not empty and whose names are safe on every system; not guest.log and result.json, unless a glob is that name. Nothing is kept where the controller has no place for it (--log-dir). status.artifacts.notes says what is left out. The default is none.',
      ),
    hostSelector: z
      .strictObject({ matchLabels: matchLabels.describe('Labels the IncusHost must have.') })
      .meta(immutable)
      .optional()
      .describe("Which IncusHosts may run the job. The default is any that admits the CiJob's namespace."),
    priority: z
      .int()
      .min(-1000000)
      .max(1000000)
      .default(0)
      .meta(immutable)
      .describe(
        'Of the jobs of one namespace, those of a higher priority are admitted first. Among namespaces slots are shared: the next one goes to the namespace that has the fewest. Running jobs are never preempted.',
      ),
    bootTimeoutSeconds: z
      .int()
      .min(1)
      .max(3600)
      .default(120)
      .meta(immutable)
      .describe(
        'Seconds that an instance may take from its start until it can take the command. Longer is an infrastructure failure.',
      ),
    queueTimeoutSeconds: z
      .int()
      .min(1)
      .max(2592000)
      .meta(immutable)
      .optional()
      .describe(
        'Seconds to wait for a host with a free slot before the job fails, from status.queuedAt on. The default is to wait as long as it takes.',
      ),
    infraRetryLimit: z
      .int()
      .min(0)
      .max(10)
      .default(2)
      .meta(immutable)
      .describe(
        'How many new attempts may follow infrastructure failures, such as a guest that does not boot. Two attempts in a row whose instances Incus could not make or start, for the same reason, are not followed by another. A command that failed or timed out is never run again. When a host is lost, the earlier attempt may still be running there; 0 means that the command runs at most once overall.',
      ),
    suspend: z
      .boolean()
      .default(false)
      .describe('While true the job is not admitted to a host. A job that was admitted already continues.'),
    cancel: z
      .boolean()
      .default(false)
      .describe(
        'Set it to true to end the job: its instance is deleted and it is Failed with the reason Cancelled. It cannot be undone.',
      )
      .meta({
        'x-kubernetes-validations': [{ rule: 'self || !oldSelf', message: 'cannot be taken back' }],
      }),
    holdOnFailureSeconds: z
      .int()
      .min(0)
      .max(604800)
      .default(0)
      .meta(immutable)
      .describe(
        'Seconds to keep the instance of a failed job, for debugging. It keeps its slot on the host meanwhile.',
      ),
    ttlSecondsAfterFinished: z
      .int()
      .min(0)
      .max(31536000)
      .optional()
      .describe(
        'Seconds after which the finished CiJob is deleted. The default is to keep it. Leave it out where GitOps would create the job again.',
      ),
  })
  .meta({
    'x-kubernetes-validations': [
      ...['hostSelector', 'queueTimeoutSeconds'].map((field) => ({
        rule: `has(self.${field}) == has(oldSelf.${field})`,
        message: `${field} is immutable`,
      })),
    ],
  });
export type CiJobSpec = z.infer<typeof CiJobSpec>;

/** {@link guestPath} in CEL, for the mount in the variable `name`. */
function celGuestPath(name: string): string {
  const wellKnown = Object.entries(wellKnownMountPaths).reduceRight(
    (otherwise, [mount, path]) => `${name}.name == '${mount}' ? '${path}' : ${otherwise}`,
    `${name}.name`,
  );
  return `(has(${name}.path) ? ${name}.path : ${wellKnown})`;
}

/** One command, run once in a fresh guest. */
export const CiJob = z
  .object({
    apiVersion: z.literal(apiVersion),
    kind: z.literal('CiJob'),
    metadata: ObjectMeta,
    spec: CiJobSpec.describe(
      'What to run, and in which guest. Immutable but for suspend, cancel and ttlSecondsAfterFinished.',
    ),
    status: CiJobStatus.optional().describe('How far the job is. Written by the controller.'),
  })
  .describe('A CiJob is one command, run once in a fresh Incus guest that is deleted afterwards.');
export type CiJob = z.infer<typeof CiJob>;
