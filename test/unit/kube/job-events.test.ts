import { describe, expect, it } from 'vitest';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import type { Condition } from '../../../controller/api/conditions.ts';
import { happenings } from '../../../controller/kube/job-events.ts';

const condition = (
  type: string,
  status: Condition['status'] = 'True',
  reason = 'Test',
  message = 'why',
): Condition => ({
  type,
  status,
  reason,
  message,
  lastTransitionTime: '2026-01-01T00:00:00Z',
});
const told = (before: CiJobStatus | undefined, after: CiJobStatus) =>
  happenings(before, after).map(({ type, reason, note }) => `${type} ${reason}: ${note}`);

const waiting: CiJobStatus = { conditions: [condition('Admitted', 'False')] };
const admitted: CiJobStatus = { host: 'h', instance: { name: 'i' }, conditions: [condition('Admitted')] };
const running: CiJobStatus = { ...admitted, conditions: [condition('Admitted'), condition('RunnerStarted')] };
const attempt = (number: number) => ({
  attempt: number,
  reason: 'HostLost',
  message: 'no route',
  finishedAt: '2026-01-01T00:00:00Z',
});
const failed = (of: 'Test' | 'Config' | 'Cancelled'): CiJobStatus => ({
  ...running,
  conditions: [condition('Admitted'), condition('RunnerStarted'), condition('Failed')],
  failure: { class: of, reason: 'Because', message: 'of that' },
});

const artifacts = (...reasons: string[]): CiJobStatus => ({
  ...running,
  artifacts: {
    ...{ files: 1, bytes: 100, skipped: 0, truncated: false },
    notes: reasons.map((reason) => ({ reason, message: `because of ${reason}` })),
  },
});

describe('the events of a job', () => {
  it.each([
    ['it is admitted', waiting, admitted, ['Normal Admitted: instance i on host h']],
    ['its command runs', admitted, running, ['Normal Started: the command runs in instance i']],
    [
      'an attempt is lost',
      running,
      { attempts: [attempt(1)] },
      ['Warning HostLost: attempt 1 was lost: no route'],
    ],
    [
      'a further one is lost',
      { attempts: [attempt(1)] },
      { attempts: [attempt(1), attempt(2)] },
      ['Warning HostLost: attempt 2 was lost: no route'],
    ],
    [
      'it succeeds',
      running,
      { ...running, exitCode: 0, conditions: [...(running.conditions ?? []), condition('Complete')] },
      ['Normal Succeeded: the command exited with code 0'],
    ],
    [
      'not all of its log could be read',
      running,
      {
        ...running,
        conditions: [...(running.conditions ?? []), condition('Collected', 'False', 'Incomplete')],
      },
      ['Warning Incomplete: not all could be read: why'],
    ],
    [
      'not all of its artifacts are kept',
      running,
      artifacts('NotRegular', 'FileLimit'),
      ['Warning ArtifactsIncomplete: because of NotRegular; because of FileLimit'],
    ],
    [
      'links are not among them',
      running,
      artifacts('NotRegular'),
      ['Normal ArtifactsIncomplete: because of NotRegular'],
    ],
    ['it fails', running, failed('Test'), ['Warning Because: Test: of that']],
    ['somebody calls it off', running, failed('Cancelled'), ['Normal Because: Cancelled: of that']],
    [
      'its host goes out of sight',
      running,
      {
        ...running,
        conditions: [...(running.conditions ?? []), condition('Ready', 'Unknown', 'HostUnreachable')],
      },
      ['Warning HostUnreachable: why'],
    ],
    [
      'it cannot be cleaned up',
      failed('Test'),
      { conditions: [condition('InstanceDeleted', 'Unknown', 'HostUnreachable')] },
      ['Warning CleanupBlocked: why'],
    ],
    [
      'it is let go by force',
      { conditions: [condition('InstanceDeleted', 'Unknown', 'HostUnreachable')] },
      { conditions: [condition('InstanceDeleted', 'False', 'Forced')] },
      ['Warning CleanupForced: the job was released by annotation: an instance may be left behind'],
    ],
  ] as [string, CiJobStatus, CiJobStatus, string[]][])('tell that %s', (_what, before, after, expected) => {
    expect(told(before, after)).toEqual(expected);
    // Once: looking at it again is no news.
    expect(told(after, after)).toEqual([]);
  });

  it('tell nothing of a job that waits, goes back to the queue or has its instance gone', () => {
    expect(told(undefined, waiting)).toEqual([]);
    expect(told(admitted, waiting)).toEqual([]);
    expect(told(failed('Test'), { conditions: [condition('InstanceDeleted')] })).toEqual([]);
  });

  it('tell what came together all at once', () => {
    expect(told(undefined, failed('Config'))).toHaveLength(3);
  });
});
