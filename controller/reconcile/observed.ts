import type { Verb } from '../incus/commands.ts';
import type { EndedOperation, InstanceView } from '../incus/inventory.ts';
import type { Collected, CommandOutcome } from '../incus/outcome.ts';
import type { Resolved } from './desired.ts';

/** The host that a job was admitted to. */
export type HostView =
  | { kind: 'up'; since: number; storagePool: string }
  /** Nothing is known of its instances: they are not gone, only out of sight. */
  | { kind: 'down'; since: number; reason: string; message: string };

/** What became of a job's request for a slot. */
export type Admission =
  | { kind: 'admitted'; host: string }
  | {
      kind: 'waiting';
      reason: string;
      message: string;
      /** Those that may take the job one day with the specs they have, in reach or not. */
      hosts: readonly string[];
      position: number;
      length: number;
    }
  | { kind: 'refused'; reason: string; message: string };

/** A command that did not do what it should. */
export interface Problem {
  verb: Verb;
  outcome: Extract<CommandOutcome, { kind: 'refused' | 'failed' | 'unknown' }>;
  /** How often in a row. */
  count: number;
  /** When the first of these came back, in milliseconds since the epoch. */
  since: number;
  /** When the last one did. */
  at: number;
}

/**
 * What we remember of an attempt between two looks at it. Only a cache: each of these can be found out again by
 * asking, and a controller that starts with none of it comes to the same end.
 */
export interface Memory {
  attempt: number;
  /** Commands under way. None is sent while one is. */
  inFlight: Verb | undefined;
  resolved: Resolved | undefined;
  problem: Problem | undefined;
  /** A VM's agent answered a probe. */
  agentAnswered: boolean;
  /** When the last probe came back, with whatever answer. */
  probedAt: number | undefined;
  /** Operation of the runner we launched, and how often we did. */
  operation: string | undefined;
  launches: number;
  /** When we last did, in milliseconds since the epoch. */
  launchedAt: number | undefined;
  collected: Collected | undefined;
  /**
   * The instance that the host was asked for and did not have. That a list does not show one is not enough: what we
   * know of the job may be newer than what we know of the host, when another controller has only just made it.
   */
  gone: string | undefined;
}

export function blankMemory(attempt: number): Memory {
  return {
    attempt,
    inFlight: undefined,
    resolved: undefined,
    problem: undefined,
    agentAnswered: false,
    probedAt: undefined,
    operation: undefined,
    launches: 0,
    launchedAt: undefined,
    collected: undefined,
    gone: undefined,
  };
}

/** The runner that we launched, as its operation shows it. `lost`: nobody knows of the operation any more. */
export type RunnerView = 'none' | 'running' | 'lost' | EndedOperation;

/** Everything that a plan is made from, beside the job itself. */
export interface Observed {
  controllerId: string;
  /** undefined: the job was not admitted yet. */
  host: HostView | undefined;
  /** Instance of the current attempt. */
  instance: InstanceView | undefined;
  /** Operations run on an instance of its name, whether or not it is there (yet). */
  underWay: boolean;
  runner: RunnerView;
  /** Instances of the job beside the current attempt's. */
  strays: readonly { host: string; instance: InstanceView }[];
  /** Hosts out of sight on which the job may have left an instance. */
  unseen: readonly string[];
  /** undefined: not asked. */
  admission: Admission | undefined;
  /** None of the hosts that may take the job is in reach, nor will one be. A cluster may always get another one. */
  hostless: boolean;
  memory: Memory;
}

/** How long things may take, in milliseconds. */
export interface Patience {
  /** A host may be out of reach for this long before its jobs say so. */
  hostBlip: number;
  /** A host may be out of reach for this long before its attempts count as lost. */
  hostGrace: number;
  /** The same for a job that was called off, which nobody wants to wait for. */
  cancelGrace: number;
  /** What the host allows the runner beyond the command's own limit. */
  deadlineSlack: number;
  /** First pause before a new attempt; it doubles with every further one. */
  retryBase: number;
  retryMax: number;
}

export const defaultPatience: Patience = {
  hostBlip: 10_000,
  hostGrace: 10 * 60_000,
  cancelGrace: 10 * 60_000,
  deadlineSlack: 30_000,
  retryBase: 5_000,
  retryMax: 5 * 60_000,
};
