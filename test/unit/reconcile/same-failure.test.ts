import { describe, expect, test } from 'vitest';
import type { Attempt } from '../../../controller/api/cijob-status.ts';
import { isSameFailure } from '../../../controller/reconcile/same-failure.ts';
import { statusAfter } from '../../../controller/reconcile/status.ts';
import { infrastructure, type FailedVerdict } from '../../../controller/reconcile/verdict.ts';
import { admitted, name, now, seen, time } from './fixtures.ts';

describe('two failures are the same', () => {
  const failed = (message: string, instance = 'pikaci-1a2b-1') => ({
    reason: 'StartFailed',
    message,
    instance,
  });

  test('when only names of instances, numbers and identifiers tell them apart', () => {
    for (const [one, other] of [
      [
        failed('forkstart pikaci-1a2b-1 /run/pikaci-1a2b-1/lxc.conf'),
        failed('forkstart pikaci-9c-2 /run/pikaci-9c-2/lxc.conf', 'pikaci-9c-2'),
      ],
      [failed('process 31298 (fd 34)'), failed('process 7 (fd 5)')],
      [failed('-uuid 0c7f1c9e-2a'), failed('-uuid 7d80aa41-9b')],
      // The one that is stored was cut.
      [failed('x'.repeat(1024)), failed(`${'x'.repeat(1024)} and more`)],
    ] as const)
      expect(isSameFailure(one, other), one.message).toBe(true);
  });

  test('and not when they say something else', () => {
    expect(isSameFailure(failed('no space left'), failed('no such device'))).toBe(false);
    expect(isSameFailure(failed('no'), { ...failed('no'), reason: 'CreateFailed' })).toBe(false);
    const mount = (path: string) => failed(`link in ${path} was a symbolic link!`);
    expect(isSameFailure(mount('/data/one'), mount('/data/other'))).toBe(false);
  });
});

describe('an attempt that failed as the one before it', () => {
  const lost = (message: string): Attempt => ({
    attempt: 1,
    instance: 'pikaci-before-1',
    reason: 'StartFailed',
    message,
    finishedAt: time,
  });
  const start = (message: string): FailedVerdict => ({
    ...infrastructure('StartFailed', message),
    lasting: true,
  });
  const ended = (verdict: FailedVerdict, ...attempts: Attempt[]) => {
    const job = admitted({ infraRetryLimit: 5 });
    const status = { ...job.status, ...(attempts.length > 0 ? { attempts } : {}) };
    return statusAfter({ ...job, status }, { verdict }, seen(), now);
  };

  test('is not followed by another, and the job says why', () => {
    const status = ended(start(`cannot start ${name}`), lost('cannot start pikaci-before-1'));
    expect(status).toMatchObject({
      phase: 'Failed',
      failure: {
        class: 'Infrastructure',
        reason: 'StartFailed',
        message: `cannot start ${name}; the attempt before failed in the same way, so it is not tried again`,
      },
      attempts: [{ attempt: 1, message: 'cannot start pikaci-before-1' }],
    });
  });

  test('is followed by another when it is the first, when it says something else, or when it is one that passes', () => {
    const passing = infrastructure('StartFailed', 'the same');
    for (const [verdict, ...attempts] of [
      [start('the same')],
      [start('another'), lost('the same')],
      [start('the same'), lost('the same'), lost('another')],
      [passing, lost('the same')],
    ] as const)
      expect(ended(verdict, ...attempts)).toMatchObject({ phase: 'Pending' });
  });
});
