import { describe, expect, test } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import {
  holdUntilAnnotation,
  instanceCleanupFinalizer,
  releaseAnnotation,
} from '../../../controller/api/meta.ts';
import { jobGauges } from '../../../controller/cli/job-gauges.ts';
import { manifest } from '../../e2e/support/cluster.ts';

const now = Date.parse('2026-01-01T12:00:00Z');
const ago = (seconds: number) => new Date(now - seconds * 1000).toISOString();

function job(spec: Partial<CiJob['spec']>, status: CiJob['status'], metadata: object = {}): CiJob {
  const { spec: base } = manifest('a', { command: 'true' });
  return {
    metadata: { name: 'a', uid: 'u', generation: 1, creationTimestamp: ago(5000), ...metadata },
    spec: { bootTimeoutSeconds: 120, suspend: false, holdOnFailureSeconds: 0, ...base, ...spec },
    status,
  } as CiJob;
}
const admitted = (seconds: number): CiJob['status'] => ({
  conditions: [
    { type: 'Admitted', status: 'True', reason: 'A', message: '', lastTransitionTime: ago(seconds) },
  ],
});
const ours = { finalizers: [instanceCleanupFinalizer] };

describe('what alerts ask about jobs', () => {
  test('nothing, where there are none', () => {
    expect(jobGauges([], now)).toEqual({ oldestWaiting: 0, overdue: 0, oldestCleanUp: 0 });
  });

  test('the oldest of those that wait, suspended ones aside', () => {
    const young = job({}, undefined, { creationTimestamp: ago(30) });
    const suspended = job({ suspend: true }, undefined);
    expect(jobGauges([young, suspended], now)).toMatchObject({ oldestWaiting: 30, overdue: 0 });
  });

  test('one that was resumed, since then', () => {
    const resumed = job({}, { queuedAt: ago(7) }, { creationTimestamp: ago(3600) });
    expect(jobGauges([resumed], now).oldestWaiting).toBe(7);
  });

  test('a job that waits for its next attempt, since the last was lost', () => {
    const lost = { type: 'Admitted', status: 'False', reason: 'Retrying', message: '' } as const;
    const retrying = job({}, { conditions: [{ ...lost, lastTransitionTime: ago(5) }] });
    expect(jobGauges([retrying], now).oldestWaiting).toBe(5);
  });

  test('those that hold a slot past their limits: boot, command and a quarter of an hour', () => {
    const limit = 120 + 60 + 900;
    expect(jobGauges([job({}, admitted(limit))], now).overdue).toBe(0);
    expect(jobGauges([job({}, admitted(limit + 1))], now)).toMatchObject({ overdue: 1, oldestWaiting: 0 });
  });

  test('finished ones whose instance does not go, from the end of a hold on', () => {
    const done = { completionTime: ago(300), phase: 'Failed' } as const;
    const failure = { class: 'Test', reason: 'R', message: '' } as const;
    expect(jobGauges([job({}, done)], now).oldestCleanUp).toBe(0);
    expect(jobGauges([job({}, done, ours)], now).oldestCleanUp).toBe(300);
    expect(
      jobGauges([job({ holdOnFailureSeconds: 100 }, { ...done, failure }, ours)], now).oldestCleanUp,
    ).toBe(200);
    expect(
      jobGauges([job({ holdOnFailureSeconds: 900 }, { ...done, failure }, ours)], now).oldestCleanUp,
    ).toBe(0);
    const asked = (annotations: Record<string, string>) =>
      jobGauges([job({}, { ...done, failure }, { ...ours, annotations })], now).oldestCleanUp;
    expect(asked({ [holdUntilAnnotation]: ago(50) })).toBe(50);
    expect(asked({ [holdUntilAnnotation]: ago(50), [releaseAnnotation]: '' })).toBe(300);
    const deleted = { ...ours, deletionTimestamp: ago(10) };
    expect(
      jobGauges([job({ holdOnFailureSeconds: 900 }, { ...done, failure }, deleted)], now).oldestCleanUp,
    ).toBe(10);
  });
});
