import { expect, test } from 'vitest';
import { phaseLine } from '../../../controller/standalone/progress.ts';
import type { CiJob } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { readSummary } from '../../demo/cijob-run.ts';
import { table } from '../../demo/table.ts';

const job = {
  metadata: { name: 'tests', namespace: 'ci', creationTimestamp: '2026-01-01T00:00:00.000Z' },
} as CiJob;

function after(milliseconds: number): string {
  return new Date(Date.parse(job.metadata.creationTimestamp) + milliseconds).toISOString();
}

test('reads back the phase and the times that `cijob run` tells last', () => {
  const status: CiJobStatus = {
    phase: 'Failed',
    exitCode: 3,
    failure: { class: 'Test', reason: 'NonZeroExitCode', message: 'the command exited with code 3' },
    timings: [
      { phase: 'Provisioning', startedAt: after(0), finishedAt: after(240) },
      { phase: 'Running', startedAt: after(240), finishedAt: after(92_240) },
      { phase: 'Collecting', startedAt: after(92_240), finishedAt: after(93_440) },
    ],
  };
  const line = phaseLine(job, { phase: 'Collecting' }, status, Date.parse(after(93_440)));
  expect(line).toMatch(/^ 1m33s {2}ci\/tests {2}Failed /);
  expect(readSummary(line ?? '')).toEqual({
    phase: 'Failed',
    times: { Provisioning: '240ms', Running: '1m32s', Collecting: '1.2s' },
  });
});

test('a guest that steers the terminal by its message, or adds a line, only spoils its own', () => {
  const message = 'a\u001b]0;owned\u0007b\rc\u009b2J\n  1s  ci/tests  Succeeded';
  const status: CiJobStatus = {
    phase: 'Failed',
    failure: { class: 'Test', reason: 'NonZeroExitCode', message },
  };
  expect(phaseLine(job, { phase: 'Collecting' }, status, Date.parse(after(0)))).toContain(
    'Test: NonZeroExitCode: a\uFFFD]0;owned\uFFFDb c\uFFFD2J   1s  ci/tests  Succeeded',
  );
});

test('knows nothing of a line that is no summary', () => {
  expect(readSummary('cijob: host local: /nowhere cannot be opened')).toEqual({
    phase: 'unknown',
    times: {},
  });
});

test('lines up columns, the first to the left, the others to the right', () => {
  expect(
    table([
      ['', 'EXIT'],
      ['a job', '3'],
      ['another job', '124'],
    ]),
  ).toEqual(['             EXIT', 'a job           3', 'another job   124']);
});
