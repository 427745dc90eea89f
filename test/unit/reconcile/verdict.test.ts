import { describe, expect, test } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import type { GuestFile } from '../../../controller/incus/client.ts';
import { verdictOf } from '../../../controller/reconcile/verdict.ts';

const job = { spec: { timeoutSeconds: 60, instance: { memory: '256MiB' } } } as CiJob;
const file = (text: string): GuestFile => ({ kind: 'file', size: text.length, bytes: Buffer.from(text) });
const missing: GuestFile = { kind: 'missing' };
const result = (fields: object) =>
  file(JSON.stringify({ schema_version: 1, status: 'failed', exit_code: 3, ...fields }));

describe('the verdict on what a guest left', () => {
  test.each([
    ['a result that passed', result({ status: 'passed', exit_code: 0 }), { passed: true, exitCode: 0 }],
    ['a result that failed', result({}), { passed: false, class: 'Test', exitCode: 3 }],
    ['one that timed out', result({ timed_out: true, exit_code: 124 }), { class: 'Timeout', exitCode: 124 }],
    ['a guest that could not begin', result({ bootstrap_error: 'no mount' }), { class: 'Infrastructure' }],
    [
      'one for which there was not memory enough',
      result({ exit_code: 137, oom_killed: true, message: 'exited with 137' }),
      {
        class: 'Test',
        reason: 'OutOfMemory',
        exitCode: 137,
        message:
          'the memory limit of 256MiB was reached: the kernel killed a process of the job (exited with 137)',
      },
    ],
    [
      'one that went on without what was killed for its memory, until its time was up',
      result({ timed_out: true, oom_killed: true }),
      {
        class: 'Timeout',
        message: expect.stringContaining('60 s; the memory limit of 256MiB was reached') as string,
      },
    ],
    [
      'a guest that says so of what passed',
      result({ status: 'passed', exit_code: 0, oom_killed: true }),
      { passed: true },
    ],
    [
      'a guest that blames its memory for not having begun',
      result({ bootstrap_error: 'no mount', oom_killed: true }),
      { class: 'Infrastructure', reason: 'BootstrapFailed' },
    ],
    ['a directory', { kind: 'unreadable', what: 'directory' } as const, { reason: 'ResultInvalid' }],
    ['no JSON', file('{"schema_version":1,"sta'), { reason: 'ResultInvalid' }],
    ['another schema', result({ schema_version: 2 }), { reason: 'ResultInvalid' }],
    ['more than was read', { ...file('{'), size: 1e9 }, { reason: 'ResultInvalid' }],
  ])('is right on %s', (_what, given, expected) => {
    expect(verdictOf(job, { result: given, log: missing })).toMatchObject(expected);
  });

  test.each([
    ['that is not there', missing],
    ['that is still empty, as the runner makes it before it begins', file('')],
  ])('is not given on a result %s', (_what, given) => {
    expect(verdictOf(job, { result: given, log: file('here\n') })).toBeUndefined();
  });
});
