import { describe, expect, it } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { leftOutLines } from '../../../controller/standalone/progress.ts';

const job = { metadata: { namespace: 'ci', name: 'build' } } as CiJob;
const ended: CiJobStatus = {
  completionTime: '2026-01-01T00:00:00Z',
  artifacts: {
    ...{ files: 1, bytes: 100, skipped: 0, truncated: false },
    notes: [
      { reason: 'NoMatch', message: 'no file matches a' },
      { reason: 'NotRegular', message: 'left out 1: \u001b[2Jx\nforged: line' },
    ],
  },
  conditions: [
    {
      ...{ type: 'Collected', status: 'False', reason: 'Incomplete', message: 'the log: too slow' },
      lastTransitionTime: '2026-01-01T00:00:00Z',
    },
  ],
};

describe('the lines about what is left out', () => {
  it('say what could not be read and what is not kept, a line each', () => {
    expect(leftOutLines(job, {}, ended)).toEqual([
      'ci/build: not all could be read: the log: too slow',
      'ci/build: artifacts: no file matches a',
      'ci/build: artifacts: left out 1: \uFFFD[2Jx forged: line',
    ]);
  });

  it('come once, and not where there is nothing to say', () => {
    expect(leftOutLines(job, ended, ended)).toEqual([]);
    expect(leftOutLines(job, {}, { completionTime: '2026-01-01T00:00:00Z' })).toEqual([]);
  });
});
