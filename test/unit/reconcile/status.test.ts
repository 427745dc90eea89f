import { describe, expect, it } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import type { ArchiveSummary } from '../../../controller/incus/outcome.ts';
import { duration, statusAfter, statusWhileCleaning } from '../../../controller/reconcile/status.ts';
import { type Step } from '../../../controller/reconcile/step.ts';
import { infrastructure, type Verdict } from '../../../controller/reconcile/verdict.ts';
import { admitted, anInstance, now, running, seen } from './fixtures.ts';

const after = (job: CiJob, step: Step, seconds = 0) =>
  statusAfter(job, step, seen({ instance: anInstance() }), now + seconds * 1000);
const conditions = ({ conditions: all = [] }: CiJobStatus) =>
  all.map(({ type, status, reason }) => `${type}=${status} ${reason}`);
const log = { bytes: 9000, truncated: true, excerpt: 'the end' };
const test: Verdict = {
  passed: false,
  class: 'Test',
  reason: 'NonZeroExitCode',
  message: 'no',
  exitCode: 3,
  log,
};

describe('the status of a job', () => {
  it('that is under way is not ready, and reconciling', () => {
    expect(conditions(running().status!)).toEqual([
      'Admitted=True SlotGranted',
      'AgentReady=True AgentAnswers',
      'RunnerStarted=True RunnerLaunched',
      'Ready=False Running',
      'Reconciling=True Running',
    ]);
  });

  it('that passed is complete and ready, and has no failure', () => {
    const status = after(running(), { verdict: { passed: true, exitCode: 0, log } }, 92);
    expect(conditions(status).slice(3)).toEqual([
      'RunnerExited=True RunnerEnded',
      'Collected=True LogRead',
      'Complete=True Succeeded',
      'Ready=True Succeeded',
    ]);
    expect(status).toMatchObject({
      phase: 'Succeeded',
      exitCode: 0,
      duration: '1m32s',
      log: { bytes: 9000, truncated: true },
      completionTime: '2026-01-01T12:01:32.000Z',
    });
    expect(status.failure).toBeUndefined();
  });

  it('that failed says whose fault it was and shows the end of its log', () => {
    const status = after(running(), { verdict: test });
    expect(conditions(status).slice(-3)).toEqual([
      'Failed=True NonZeroExitCode',
      'Ready=False NonZeroExitCode',
      'Stalled=True NonZeroExitCode',
    ]);
    const failure = { class: 'Test', reason: 'NonZeroExitCode', message: 'no', excerpt: 'the end' };
    expect(status).toMatchObject({ phase: 'Failed', exitCode: 3, failure });
  });

  it('that was called off is Failed, as in a batch Job, by the reason Cancelled', () => {
    const verdict: Verdict = { passed: false, class: 'Cancelled', reason: 'Deleted', message: '' };
    const status = after(admitted(), { verdict });
    expect([status.phase, status.failure?.reason]).toEqual(['Cancelled', 'Deleted']);
    expect(conditions(status)).toContain('Failed=True Cancelled');
    // It never ran: nothing is said of a runner, and it took no time.
    expect([status.duration, conditions(status).filter((one) => one.startsWith('Runner'))]).toEqual([
      undefined,
      [],
    ]);
  });

  it('that is over never changes again, but for the generation it is about', () => {
    const job = { ...running(), status: after(running(), { verdict: test }) };
    const edited = { ...job, metadata: { ...job.metadata, generation: 7 } };
    expect(after(edited, { verdict: infrastructure('HostLost', '') }, 9)).toEqual({
      ...job.status,
      observedGeneration: 7,
    });
  });

  it('keeps the time of each phase, of which one is open at a time', () => {
    const job = running();
    const collecting = { ...job, status: after(job, { phase: 'Collecting' }, 5) };
    expect(collecting.status.timings?.map(({ finishedAt }) => finishedAt === undefined)).toEqual([
      false,
      false,
      true,
    ]);
    const { timings } = after(collecting, { verdict: test }, 6);
    expect(timings?.map(({ phase }) => phase)).toEqual(['Provisioning', 'Running', 'Collecting']);
    expect(timings?.every(({ finishedAt }) => finishedAt !== undefined)).toBe(true);
    expect(after(job, { phase: 'Running' }, 9).timings).toEqual(job.status?.timings);
  });

  it('that waits for a host out of sight is not known', () => {
    const status = after(running(), { blocked: { reason: 'HostUnreachable', message: 'no route' } });
    expect(conditions(status).slice(-2)).toEqual([
      'Ready=Unknown HostUnreachable',
      'Reconciling=True HostUnreachable',
    ]);
    expect(conditions(after({ ...running(), status }, {})).slice(-2)).toEqual([
      'Ready=False Running',
      'Reconciling=True Running',
    ]);
  });

  describe('says what is kept of the artifacts', () => {
    const kept = { files: 2, bytes: 300, skipped: 1, truncated: false };
    const notes = [{ reason: 'NoMatch', message: 'no file matches a' }];
    const verdict: Verdict = { passed: true, exitCode: 0, log };
    const artifactsOf = (job: CiJob, artifacts?: ArchiveSummary) => {
      const collected = { result: missing, log: missing, artifacts };
      return statusAfter(job, { verdict }, seen({ memory: { collected } }), now).artifacts;
    };
    const missing = { kind: 'missing' } as const;
    const asking = { artifacts: ['a'] };

    it('and nothing more where all that was asked for is there', () => {
      expect(artifactsOf(running(asking), { ...kept, notes: [] })).toEqual(kept);
    });

    it('and what is not', () => {
      expect(artifactsOf(running(asking), { ...kept, notes })).toEqual({ ...kept, notes });
    });

    it('where the guest could not be read', () => {
      const nothing = { files: 0, bytes: 0, skipped: 0, truncated: false };
      expect(artifactsOf(running(asking))).toMatchObject({ ...nothing, notes: [{ reason: 'NotRead' }] });
    });

    it('but not of a job that asks for none, or never ran', () => {
      expect(artifactsOf(running())).toBeUndefined();
      expect(artifactsOf(admitted(asking))).toBeUndefined();
    });
  });

  it('keeps the image that the alias led to', () => {
    expect(after(admitted(), { imageFingerprint: 'abc' }).instance).toMatchObject({
      imageFingerprint: 'abc',
    });
  });
});

describe('an attempt that the infrastructure ended', () => {
  const lost: Step = { verdict: infrastructure('HostLost', 'no route') };

  it('is begun anew as if the job had just come, as often as it allows', () => {
    let job = running({ infraRetryLimit: 2 });
    for (const attempt of [1, 2]) {
      const status = after(job, lost);
      expect(status).toMatchObject({ phase: 'Pending', attempt: attempt + 1 });
      expect(status.attempts).toHaveLength(attempt);
      expect([status.host, status.instance, status.completionTime]).toEqual([
        undefined,
        undefined,
        undefined,
      ]);
      expect(conditions(status)).toEqual([
        'Admitted=False Retrying',
        'Ready=False Retrying',
        'Reconciling=True Retrying',
      ]);
      job = { ...job, status: after({ ...job, status }, { admittedTo: 'h', phase: 'Provisioning' }) };
    }
    const status = after(job, lost);
    expect(status).toMatchObject({ phase: 'Failed', attempt: 3, failure: { class: 'Infrastructure' } });
    // When it was admitted first is when it began.
    expect(status.startTime).toBe(new Date(now).toISOString());
  });

  it('is the last one of a job that was called off', () => {
    expect(after(running({ cancel: true, infraRetryLimit: 2 }), lost).phase).toBe('Failed');
    const deletionTimestamp = new Date(now).toISOString();
    expect(after(running({ infraRetryLimit: 2 }, { deletionTimestamp }), lost).phase).toBe('Failed');
  });

  it('stays within what the API takes, however long the words and the history', () => {
    const words = 'x'.repeat(10_000);
    let job = running({ infraRetryLimit: 10 });
    for (let count = 0; count < 11; count += 1) {
      const status = after(job, { verdict: infrastructure('HostLost', words) });
      expect(CiJobStatus.safeParse(status).error).toBeUndefined();
      job = { ...job, status: after({ ...job, status }, { admittedTo: 'h', phase: 'Provisioning' }) };
    }
    expect(job.status?.failure?.message).toHaveLength(4096);
    expect(job.status?.attempts?.at(-1)?.message).toHaveLength(1024);
  });
});

describe('a job that is over and cannot be let go of', () => {
  const job = { ...running(), status: after(running(), { verdict: test }) };
  const cleaning = (clean: boolean, blockedBy: string[]) => ({ commands: [], clean, blockedBy });
  const told = (status: CiJobStatus) => conditions(status).find((one) => one.startsWith('InstanceDeleted'));

  it('says which host keeps it, and what came of it; and nothing in the ordinary case', () => {
    expect(statusWhileCleaning(job, job.status, cleaning(false, []), now)).toBe(job.status);
    expect(statusWhileCleaning(job, job.status, cleaning(true, []), now)).toBe(job.status);
    const kept = statusWhileCleaning(job, job.status, cleaning(false, ['h', 'i']), now);
    expect(told(kept)).toBe('InstanceDeleted=Unknown HostUnreachable');
    expect(kept.conditions?.find(({ type }) => type === 'InstanceDeleted')?.message).toContain(
      'host h, i is unreachable',
    );
    expect(told(statusWhileCleaning(job, kept, cleaning(true, []), now))).toBe(
      'InstanceDeleted=True InstanceGone',
    );
    expect(told(statusWhileCleaning(job, kept, cleaning(true, ['h']), now))).toBe(
      'InstanceDeleted=False Forced',
    );
  });
});

describe('a duration', () => {
  it.each([
    [-5, '0ms'],
    [850, '850ms'],
    [1_000, '1.0s'],
    [59_900, '59.9s'],
    [60_000, '1m00s'],
    [92_900, '1m32s'],
    [3_600_000, '1h00m'],
    [7_500_000, '2h05m'],
  ])('of %i ms is %s', (milliseconds, expected) => {
    expect(duration(milliseconds)).toBe(expected);
  });
});
