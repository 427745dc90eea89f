import { isTrue } from '../api/conditions.ts';
import type { CiJob } from '../api/cijob.ts';
import type { CiJobCondition, Phase } from '../api/cijob-status.ts';
import type { ConditionClaim } from '../api/conditions.ts';
import { instanceCleanupFinalizer } from '../api/meta.ts';
import type { Command } from '../incus/commands.ts';
import type { InstanceView } from '../incus/inventory.ts';
import type { Verdict } from './verdict.ts';

/** What one part of the plan has to say. Whatever it leaves out stays as it is. */
export interface Step {
  phase?: Phase;
  /** The job takes its slot on this host. */
  admittedTo?: string;
  needsSlot?: boolean;
  /** Since when the job waits for a slot, in milliseconds since the epoch; undefined when it does not want one now. */
  queuedAt?: number | undefined;
  /** Its place among the jobs that wait, and when it had that; undefined when it does not wait. */
  queue?: { position: number; length: number; asOf: number } | undefined;
  imageFingerprint?: string;
  conditions?: Partial<Record<CiJobCondition, ConditionClaim>>;
  /** Set while the job waits for something that is not in its own hands: a host out of sight. */
  blocked?: { reason: string; message: string };
  verdict?: Verdict;
  commands?: readonly { host: string; command: Command }[];
  /** What is under way at a guest should end with what it has, after so many milliseconds. */
  cutShortIn?: number | undefined;
  wakeAt?: number | undefined;
}

/** Whether the job cannot vanish from the cluster before we let it go. */
export function hasFinalizer({ metadata }: Pick<CiJob, 'metadata'>): boolean {
  return metadata.finalizers?.includes(instanceCleanupFinalizer) ?? false;
}

export function isFinished(job: Pick<CiJob, 'status'>): boolean {
  return isTrue(job.status?.conditions, 'Complete') || isTrue(job.status?.conditions, 'Failed');
}

/**
 * Whether an instance is the job's own, made by this installation. The job's uid alone does not tell: a cluster that was
 * restored beside the one it is a copy of has jobs of the same uids.
 */
export function isOwn({ metadata }: CiJob, { labels }: InstanceView, controllerId: string): boolean {
  return labels['uid'] === metadata.uid && labels['controller'] === controllerId;
}

/** Why a job should not go on: somebody deleted or cancelled it. */
export function calledOff(job: CiJob): 'Deleted' | 'Cancelled' | undefined {
  if (job.metadata.deletionTimestamp !== undefined) return 'Deleted';
  return job.spec.cancel ? 'Cancelled' : undefined;
}

export function yes(reason: string, message: string): ConditionClaim {
  return { status: 'True', reason, message };
}

export function no(reason: string, message: string): ConditionClaim {
  return { status: 'False', reason, message };
}
