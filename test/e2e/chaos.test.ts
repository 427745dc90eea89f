import { writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { storm, type StormSize } from './chaos-storm.ts';

/** For every run. The long one is `npm run e2e:chaos`. */
const short: StormSize = {
  jobs: 12,
  controllerKills: 10,
  sshCuts: 3,
  incusdKills: 1,
  apiRestarts: 1,
  settleSeconds: 60,
};
const long: StormSize = {
  jobs: 50,
  controllerKills: 100,
  sshCuts: 25,
  incusdKills: 6,
  apiRestarts: 6,
  settleSeconds: 180,
};
const reportFile = process.env['CHAOS_REPORT'];
const size = reportFile === undefined ? short : long;

test(
  'whatever dies, every command runs once per attempt, every outcome is right, and nothing is left',
  { timeout: 3_600_000 },
  async () => {
    const report = await storm(size, (line) => console.log(`chaos: ${line}`));
    console.log(report.table);
    if (reportFile !== undefined) await writeFile(reportFile, JSON.stringify(report));
    expect(report.complaints).toEqual([]);
    expect(report.figures).toMatchObject({
      ranMoreThanOnce: 0,
      lost: 0,
      wrongOutcome: 0,
      instancesLeft: 0,
    });
    expect(report.figures.jobs).toBeGreaterThanOrEqual(size.jobs);
    expect(report.figures.controllerKills).toBeGreaterThanOrEqual(size.controllerKills);
  },
);
