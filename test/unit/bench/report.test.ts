import { expect, test } from 'vitest';
import { median, report, summary, type Samples } from '../../bench/report.ts';

const samples: Samples = {
  floor: [400, 380, 420],
  standalone: [440, 900, 420],
  cluster: [480, 500, 490],
  exitToTerminal: [60, 50, 400],
  apiWrites: [5, 5, 5],
  incusRequests: [13, 13, 14],
  wholeProgram: [1200],
};

test('takes the middle value, and the mean of the two in the middle', () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([9, 1, 5, 7])).toBe(6);
  expect(median([])).toBeNaN();
});

test('gives medians and their ratios, under the names that are tracked', () => {
  expect(summary(samples)).toEqual({
    floorMs: 400,
    standaloneMs: 440,
    clusterMs: 490,
    ratioStandalone: 1.1,
    ratioCluster: 1.225,
    exitToTerminalMs: 60,
    apiWritesPerJob: 5,
    incusRequestsPerJob: 13,
  });
});

test('tells people the same', () => {
  const text = report(samples).join('\n');
  expect(text).toMatch(/^cluster: .* 490 ms +480 ms +500 ms +1\.23$/m);
  expect(text).toContain('60 ms');
  expect(text).toMatch(/writes to the API server, per job: 5$/m);
});
