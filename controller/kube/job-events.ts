import { findCondition } from '../api/conditions.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import type { Happening } from './event-recorder.ts';

/** What a change of a job's status is worth telling, as Events. Nothing changed, nothing told. */
export function happenings(before: CiJobStatus | undefined, after: CiJobStatus): Happening[] {
  const told: Happening[] = [];
  const turnedTrue = (type: string) =>
    findCondition(after.conditions, type)?.status === 'True' &&
    findCondition(before?.conditions, type)?.status !== 'True';
  if (turnedTrue('Admitted')) {
    told.push(
      normal('Admitted', 'Admit', `instance ${after.instance?.name ?? ''} on host ${after.host ?? ''}`),
    );
  }
  if (turnedTrue('RunnerStarted')) {
    told.push(normal('Started', 'Launch', `the command runs in instance ${after.instance?.name ?? ''}`));
  }
  const attempt = after.attempts?.at(-1);
  if (attempt && attempt.attempt !== before?.attempts?.at(-1)?.attempt) {
    told.push(warning(attempt.reason, 'Retry', `attempt ${attempt.attempt} was lost: ${attempt.message}`));
  }
  if (turnedTrue('Complete')) {
    told.push(normal('Succeeded', 'Finish', `the command exited with code ${after.exitCode ?? 0}`));
  }
  if (turnedTrue('Failed')) {
    const {
      class: blame,
      reason,
      message,
    } = after.failure ?? { class: 'Config', reason: 'Failed', message: '' };
    const tell = blame === 'Cancelled' ? normal : warning;
    told.push(tell(reason, 'Finish', `${blame}: ${message}`));
  }
  const collected = findCondition(after.conditions, 'Collected');
  if (collected?.status === 'False' && findCondition(before?.conditions, 'Collected')?.status !== 'False') {
    told.push(warning(collected.reason, 'Collect', `not all could be read: ${collected.message}`));
  }
  const { notes = [] } = after.artifacts ?? {};
  if (notes.length > 0 && !before?.artifacts) {
    // Links and empty files are left out of many a good archive.
    const tell = notes.every(({ reason }) => reason === 'NotRegular') ? normal : warning;
    told.push(tell('ArtifactsIncomplete', 'Collect', notes.map(({ message }) => message).join('; ')));
  }
  const ready = findCondition(after.conditions, 'Ready');
  if (ready?.status === 'Unknown' && findCondition(before?.conditions, 'Ready')?.status !== 'Unknown') {
    told.push(warning(ready.reason, 'Wait', ready.message));
  }
  const deleted = findCondition(after.conditions, 'InstanceDeleted');
  if (deleted && deleted.reason !== findCondition(before?.conditions, 'InstanceDeleted')?.reason) {
    if (deleted.status === 'Unknown') told.push(warning('CleanupBlocked', 'CleanUp', deleted.message));
    if (deleted.reason === 'Forced') {
      told.push(
        warning(
          'CleanupForced',
          'CleanUp',
          'the job was released by annotation: an instance may be left behind',
        ),
      );
    }
  }
  return told;
}

function normal(reason: string, action: string, note: string): Happening {
  return { type: 'Normal', reason, action, note };
}

function warning(reason: string, action: string, note: string): Happening {
  return { type: 'Warning', reason, action, note };
}
