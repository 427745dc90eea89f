import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import { isTrue } from '../api/conditions.ts';
import { forceCleanupAnnotation, holdUntilAnnotation, releaseAnnotation } from '../api/meta.ts';
import type { Command } from '../incus/commands.ts';
import type { InstanceView } from '../incus/inventory.ts';
import type { Observed } from './observed.ts';
import { hasFinalizer, isFinished, isOwn } from './step.ts';

export interface CleanUp {
  commands: { host: string; command: Command }[];
  /** Nothing of the job is left anywhere, and we can see that; or somebody has said to let go of it. */
  clean: boolean;
  /** Hosts that would have to be seen before the job can be let go. */
  blockedBy: readonly string[];
  wakeAt?: number;
}

const pause = 5_000;

/** Takes away what a job no longer needs: instances of earlier attempts, and all of them once it is over. */
export function cleanUp(job: CiJob, status: CiJobStatus, observed: Observed, now: number): CleanUp {
  const { strays, instance, host, memory, unseen, underWay } = observed;
  const until = heldUntil(job, status);
  const held = until !== undefined && now < until && job.metadata.deletionTimestamp === undefined;
  const ours = instance !== undefined && isOwn(job, instance, observed.controllerId);
  const over = isFinished({ status });
  const done = over && !held && instance && ours && status.host !== undefined;
  const doomed = [...strays, ...(done ? [{ host: status.host ?? '', instance }] : [])];
  // Seen gone once is gone, even if the host is out of sight by now.
  const seenGone =
    (memory.gone !== undefined && memory.gone === status.instance?.name) ||
    isTrue(status.conditions, 'InstanceDeleted');
  const hidden = host?.kind === 'down' && !seenGone;
  // What goes on in somebody else's instance of that name is no concern of ours.
  const foreign = instance !== undefined && !ours;
  const settled = (!underWay || foreign) && !hidden && memory.inFlight === undefined;
  const known = seenGone || status.host === undefined || !hasFinalizer(job);
  const gone = settled && (instance ? !ours : known);
  const look: CleanUp['commands'] =
    over && settled && !instance && !known && status.instance
      ? [{ host: status.host ?? '', command: { verb: 'read', instance: status.instance.name } }]
      : [];
  const { problem } = memory;
  const failing = problem?.verb === 'stop' || problem?.verb === 'delete' || problem?.verb === 'read';
  const pauseEnds = failing ? problem.at + pause : 0;
  const commands = [...doomed.flatMap((one) => removal(job, one.host, one.instance)), ...look];
  const forced =
    job.metadata.deletionTimestamp !== undefined &&
    job.metadata.annotations?.[forceCleanupAnnotation] !== undefined;
  const outOfSight = hidden ? [status.host ?? '', ...unseen] : unseen;
  return {
    commands: now < pauseEnds ? [] : commands,
    clean:
      over && ((strays.length === 0 && unseen.length === 0 && gone) || (forced && outOfSight.length > 0)),
    blockedBy: over ? [...new Set(outOfSight)] : [],
    ...(held ? { wakeAt: until } : commands.length > 0 && now < pauseEnds ? { wakeAt: pauseEnds } : {}),
  };
}

function removal(job: CiJob, host: string, instance: InstanceView): { host: string; command: Command }[] {
  const { uid } = job.metadata;
  const { name } = instance;
  return [
    ...(instance.status === 'Stopped'
      ? []
      : [{ host, command: { verb: 'stop', instance: name, uid } as const }]),
    { host, command: { verb: 'delete', instance: name, uid } as const },
  ];
}

/** The longest that an instance is kept after its job has failed, in milliseconds. */
export const longestHold = 7 * 24 * 3600_000;

/** Until when the instance of a failed job is kept for debugging. Annotations count before the spec. */
export function heldUntil({ metadata, spec }: CiJob, status: CiJobStatus): number | undefined {
  const { failure, completionTime } = status;
  const { annotations = {} } = metadata;
  if (!failure || failure.class === 'Cancelled' || completionTime === undefined) return undefined;
  if (annotations[releaseAnnotation] !== undefined) return undefined;
  const end = Date.parse(completionTime);
  const asked = Date.parse(annotations[holdUntilAnnotation] ?? '');
  if (!Number.isNaN(asked)) return Math.min(asked, end + longestHold);
  return spec.holdOnFailureSeconds === 0 ? undefined : end + spec.holdOnFailureSeconds * 1000;
}
