import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import type { Command } from '../incus/commands.ts';
import type { InstanceView, EndedOperation } from '../incus/inventory.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import type { Admission } from './observed.ts';

/*
 * What the reconciler needs of the world. The cluster and the in-memory store are two worlds for one reconciler.
 */

/** Where jobs are kept. Writes reject with {@link Conflict} when somebody else was quicker. */
export interface JobStore {
  /** The newest version we know of, our own writes included. */
  get(key: string): CiJob | undefined;
  addFinalizer(job: CiJob): Promise<CiJob>;
  removeFinalizer(job: CiJob): Promise<void>;
  /** Replaces the status, if it is still the one of `job`. This is what keeps two leaders from admitting twice. */
  writeStatus(job: CiJob, status: CiJobStatus): Promise<CiJob>;
  delete(job: CiJob): Promise<void>;
  /** Value of a key of a Secret in the job's namespace; undefined if there is none. */
  secret(namespace: string, name: string, key: string): Promise<Buffer | undefined>;
}

/** What a job asks of a host; see hosts/admission.ts. */
export interface SlotRequest {
  key: string;
  namespace: string;
  namespaceLabels: Readonly<Record<string, string>>;
  hostLabels: Readonly<Record<string, string>>;
  type: 'Container' | 'VirtualMachine';
  cpu: number;
  memoryBytes: number;
  rootDiskBytes: number;
  priority: number;
  avoid: readonly string[];
  createdAt: number;
}

/** A host, as far as a plan cares. */
export interface HostPort {
  readonly spec: { readonly storagePool: string };
  readonly state:
    | { readonly kind: 'up'; readonly since: number }
    | { readonly kind: 'down'; readonly since: number; readonly reason: string; readonly message: string };
  readonly inventory: {
    get(name: string): InstanceView | undefined;
    isRunning(operation: string): boolean;
    /** Whether operations run on an instance of this name, be it there or not. */
    isBusy(instance: string): boolean;
    ended(operation: string): EndedOperation | undefined;
  };
}

/** All hosts. */
export interface HostsPort {
  get(name: string): HostPort | undefined;
  instancesOf(uid: string): { host: string; instance: InstanceView }[];
  /** @param signal ends a collect early, with what was read so far */
  perform(host: string, command: Command, signal?: AbortSignal): Promise<CommandOutcome>;
  admit(request: SlotRequest, instance: string): Admission;
  /** Notes a slot that a status says is taken. The job waits for none any more. */
  occupy(
    key: string,
    instance: string,
    slot: { host: string; namespace: string; cpu: number; memoryBytes: number },
  ): void;
  /** Takes a job out of the queue, and gives back a slot that it has not taken. */
  withdraw(key: string): void;
  release(instance: string): void;
}

/** A status was computed. */
export interface StatusChange {
  job: CiJob;
  before: CiJobStatus | undefined;
  after: CiJobStatus;
  /** Whether it was also written. */
  stored: boolean;
  /** Names the look at the job by which it was computed. */
  reconcileID: string;
}

/** A command was carried out, or not. */
export interface CommandEnd {
  job: CiJob;
  host: string;
  command: Command;
  outcome: CommandOutcome;
  milliseconds: number;
  /** Names the look at the job that sent it. */
  reconcileID: string;
}

/** Hears what happened, for events, logs and metrics. Must not throw. */
export interface Observer {
  status(change: StatusChange): void;
  command(end: CommandEnd): void;
}

/** Somebody else changed the object first: look again. */
export class Conflict extends Error {
  override readonly name = 'Conflict';
}
