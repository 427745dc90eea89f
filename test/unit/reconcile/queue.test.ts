import { describe, expect, it } from 'vitest';
import { CiJob, type CiJobSpec } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { defaultPatience, type Admission } from '../../../controller/reconcile/observed.ts';
import { planQueue } from '../../../controller/reconcile/queue.ts';
import { seen } from './fixtures.ts';

const created = Date.parse('2026-01-01T00:00:00Z');
const waiting = { kind: 'waiting', reason: 'NoFreeSlot', message: 'full', position: 1, length: 1 } as const;
const admitted = { kind: 'admitted', host: 'h' } as const;

function planned(
  spec: Partial<CiJobSpec>,
  admission: Admission | undefined,
  after: number,
  status?: CiJobStatus,
) {
  const job = CiJob.parse({
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'CiJob',
    metadata: { name: 'a', uid: 'u', creationTimestamp: new Date(created).toISOString() },
    spec: { command: 'true', instance: { image: 'image' }, ...spec },
    ...(status ? { status } : {}),
  });
  const observed = seen({ host: undefined, admission });
  const step = planQueue(job, observed, created + after, defaultPatience);
  return { ...step, wakesAfter: step.wakeAt === undefined ? undefined : step.wakeAt - created };
}
/** A job whose last attempts were lost `created`. */
const lost = (times: number): CiJobStatus => ({
  attempts: Array.from({ length: times }, (_, index) => ({
    attempt: index + 1,
    reason: 'HostLost',
    message: '',
    finishedAt: new Date(created).toISOString(),
  })),
});

describe('a job in the queue', () => {
  it('has its place told anew each minute, and is looked at when its time there is over', () => {
    expect(planned({}, waiting, 5_000).wakesAfter).toBe(65_000);
    const queuedAt = new Date(created).toISOString();
    expect(planned({ queueTimeoutSeconds: 10 }, waiting, 5_000, { queuedAt }).wakesAfter).toBe(10_000);
  });

  it('takes a slot that it was given, even if its time is over by then', () => {
    expect(planned({ queueTimeoutSeconds: 10 }, admitted, 10_000)).toMatchObject({ admittedTo: 'h' });
  });

  it('has no time limit once it was admitted before: the wait is not its fault', () => {
    const again = { queueTimeoutSeconds: 10 };
    expect(planned(again, undefined, 3600_000, lost(1))).toMatchObject({ needsSlot: true });
    expect(planned(again, waiting, 3600_000, lost(1)).verdict).toBeUndefined();
  });

  it('is not given a slot while suspended, and does not fail of waiting', () => {
    const step = planned({ suspend: true, queueTimeoutSeconds: 10 }, admitted, 3600_000);
    expect([step.admittedTo, step.verdict, step.needsSlot, step.wakeAt]).toEqual(Array(4).fill(undefined));
  });

  it('waits before each new attempt, twice as long as before the last, and never longer than five minutes', () => {
    const pauses = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(
      (times) => planned({}, undefined, 0, lost(times)).wakesAfter,
    );
    expect(pauses).toEqual([5, 10, 20, 40, 80, 160, 300, 300, 300, 300].map((seconds) => seconds * 1000));
    expect(planned({}, admitted, 4_999, lost(1))).toMatchObject({ phase: 'Pending' });
    expect(planned({}, admitted, 5_000, lost(1))).toMatchObject({ admittedTo: 'h' });
  });
});
