import { describe, expect, it } from 'vitest';
import { CiJob } from '../../../controller/api/cijob.ts';
import { type CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { heldUntil } from '../../../controller/reconcile/clean-up.ts';

const end = '2026-01-01T00:00:00.000Z';
const failed: CiJobStatus = {
  completionTime: end,
  failure: { class: 'Test', reason: 'NonZeroExitCode', message: 'exited with 1' },
};

/** When an instance goes, in seconds after the job's end. */
function held(
  annotations: Record<string, string>,
  holdOnFailureSeconds = 0,
  status: CiJobStatus = failed,
): number | undefined {
  const job = CiJob.parse({
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'CiJob',
    metadata: { name: 'a', uid: 'u', creationTimestamp: end, annotations },
    spec: { command: 'false', instance: { image: 'image' }, holdOnFailureSeconds },
  });
  const until = heldUntil(job, status);
  return until === undefined ? undefined : (until - Date.parse(end)) / 1000;
}

describe('how long the instance of a failed job is kept', () => {
  it('is what the spec says, and by default not at all', () => {
    expect(held({})).toBeUndefined();
    expect(held({}, 60)).toBe(60);
  });

  it('is what the annotation hold-until says, before the spec', () => {
    expect(held({ 'ci.pikaci.dev/hold-until': '2026-01-01T01:00:00Z' })).toBe(3600);
    expect(held({ 'ci.pikaci.dev/hold-until': '2026-01-01T00:00:10Z' }, 60)).toBe(10);
  });

  it('is a week at the most', () => {
    expect(held({ 'ci.pikaci.dev/hold-until': '2099-01-01T00:00:00Z' })).toBe(7 * 24 * 3600);
  });

  it('is over when it is released, whatever else says so', () => {
    const annotations = { 'ci.pikaci.dev/release': '', 'ci.pikaci.dev/hold-until': '2026-01-01T01:00:00Z' };
    expect(held(annotations, 60)).toBeUndefined();
  });

  it('is what the spec says where the annotation is no time', () => {
    expect(held({ 'ci.pikaci.dev/hold-until': 'tomorrow' }, 60)).toBe(60);
  });

  it('is nothing for a job that passed, or was called off, or is not over', () => {
    const annotations = { 'ci.pikaci.dev/hold-until': '2026-01-01T01:00:00Z' };
    expect(held(annotations, 60, { completionTime: end })).toBeUndefined();
    expect(
      held(annotations, 60, {
        completionTime: end,
        failure: { class: 'Cancelled', reason: 'Cancelled', message: '' },
      }),
    ).toBeUndefined();
    expect(held(annotations, 60, {})).toBeUndefined();
  });
});
