import type { CiJob } from '../api/cijob.ts';
import { guestPath } from '../api/mounts.ts';
import { bytesOf } from '../api/text.ts';
import type { Command, Device, InstanceDefinition, Wanted } from '../incus/commands.ts';
import { instanceName, keyOf, specHash } from './names.ts';
import type { SlotRequest } from './ports.ts';

/** The runner that every image owns (docs/guest-contract.md). */
export const runnerPath = '/run/current-system/sw/bin/pikaci-incus-run';

/** What a host told of what a job refers to. */
export interface Resolved {
  fingerprint: string;
  /** Where the source of each mount leads. */
  sources: Readonly<Record<string, string>>;
}

/** More than a large parallel build needs, and few enough that forking without end stops at the guest. */
const maxProcesses = '4096';

export interface Surroundings {
  /** Identity of this installation. */
  controllerId: string;
  storagePool: string;
  /** Until when the instance may have somebody who looks after it, in milliseconds since the epoch. */
  leaseEnd?: number;
}

/** The instance that a job wants for one attempt. */
export function definitionOf(
  job: CiJob,
  attempt: number,
  resolved: Resolved,
  { controllerId, storagePool, leaseEnd }: Surroundings,
): InstanceDefinition {
  const { instance, mounts } = job.spec;
  const virtual = instance.type === 'VirtualMachine';
  const root: Device = {
    type: 'disk',
    path: '/',
    pool: storagePool,
    size: instance.rootDisk,
  };
  const disks = mounts.map((mount): [string, Device] => [
    `pikaci-${mount.name}`,
    {
      type: 'disk',
      source: resolved.sources[mount.source] ?? mount.source,
      path: guestPath(mount) ?? '',
      readonly: 'true',
      // A project that guards its mounts refuses shifted ones (measured on 6.0.4), so nobody gets them: in a
      // container, the host's files belong to nobody, and those that everybody may read can be read.
      shift: 'false',
      // Incus refuses a bus on containers.
      ...(virtual ? { 'io.bus': 'virtiofs' } : {}),
    },
  ]);
  return {
    name: instanceName(job.metadata.uid, attempt),
    type: virtual ? 'virtual-machine' : 'container',
    fingerprint: resolved.fingerprint,
    profiles: instance.profiles,
    config: {
      'user.cijob.uid': job.metadata.uid,
      'user.cijob.namespace': job.metadata.namespace ?? 'default',
      'user.cijob.name': job.metadata.name,
      'user.cijob.attempt': String(attempt),
      'user.cijob.controller': controllerId,
      ...(leaseEnd === undefined ? {} : { 'user.cijob.expires': new Date(leaseEnd).toISOString() }),
      'user.cijob.spec-hash': specHash(job.spec),
      'boot.autostart': 'false',
      'limits.cpu': String(instance.cpu),
      'limits.memory': instance.memory,
      // A VM's processes are its own; a container's are taken from the host's.
      ...(virtual ? { 'security.secureboot': 'false' } : { 'limits.processes': maxProcesses }),
    },
    devices: Object.fromEntries([['root', root], ...disks]),
  };
}

/** Command line of the runner, to the letter of the guest contract. */
export function launchArgv(job: CiJob): string[] {
  const { command, timeoutSeconds, runAsRoot } = job.spec;
  return [
    'env',
    `PIKACI_INCUS_GUEST_COMMAND=${command}`,
    `PIKACI_INCUS_TIMEOUT_SECS=${timeoutSeconds}`,
    `PIKACI_INCUS_RUN_AS_ROOT=${runAsRoot ? 1 : 0}`,
    runnerPath,
  ];
}

/** Parameters of the runner that are not on its command line. */
function runnerParameters(job: CiJob): Record<string, string> {
  return { PIKACI_INCUS_EXPECT_MOUNTS: job.spec.mounts.map((mount) => guestPath(mount) ?? '').join(':') };
}

/** What a job asks of a host, by the names that it uses. */
export function wantedOf({ metadata, spec }: CiJob): Wanted {
  const { image, profiles } = spec.instance;
  return {
    namespace: metadata.namespace ?? 'default',
    image,
    profiles,
    mounts: spec.mounts.map((mount) => ({ source: mount.source, path: guestPath(mount) ?? '' })),
  };
}

/** What a host is asked before anything is made on it: the image, the profiles, where the mounts lead. */
export function resolveCommand(job: CiJob, attempt: number): Extract<Command, { verb: 'resolve' }> {
  return {
    verb: 'resolve',
    instance: instanceName(job.metadata.uid, attempt),
    type: job.spec.instance.type === 'VirtualMachine' ? 'virtual-machine' : 'container',
    wanted: wantedOf(job),
  };
}

/** The making and the start of an attempt's instance. */
export function createCommand(
  job: CiJob,
  attempt: number,
  resolved: Resolved,
  surroundings: Surroundings,
): Extract<Command, { verb: 'create' }> {
  return {
    verb: 'create',
    instance: instanceName(job.metadata.uid, attempt),
    definition: definitionOf(job, attempt, resolved, surroundings),
    wanted: wantedOf(job),
  };
}

/** The start of the runner. The job's own environment is not in it (environment.ts). */
export function launchCommand(job: CiJob, attempt: number): Extract<Command, { verb: 'launch' }> {
  return {
    verb: 'launch',
    instance: instanceName(job.metadata.uid, attempt),
    argv: launchArgv(job),
    parameters: runnerParameters(job),
    environment: new Map(),
  };
}

/** The room that a job needs. */
export function slotRequestOf(job: CiJob, namespaceLabels: Readonly<Record<string, string>>): SlotRequest {
  const { instance, hostSelector, priority } = job.spec;
  return {
    key: keyOf(job.metadata),
    namespace: job.metadata.namespace ?? 'default',
    namespaceLabels,
    hostLabels: hostSelector?.matchLabels ?? {},
    type: instance.type,
    cpu: instance.cpu,
    memoryBytes: bytesOf(instance.memory),
    rootDiskBytes: bytesOf(instance.rootDisk),
    priority,
    avoid: (job.status?.attempts ?? []).flatMap(({ host }) => host ?? []),
    createdAt: Date.parse(job.metadata.creationTimestamp),
  };
}
