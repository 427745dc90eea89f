import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CiJob } from '../../controller/api/cijob.ts';
import { run, type CommandResult } from '../support/command.ts';
import type { GuestScript } from '../support/incus-sim/guest-script.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/* What `cijob run` shows and saves of jobs: a real process, on a simulated Incus of this machine. */

const program = join(import.meta.dirname, '../../controller/main.ts');
let dir: string;
let incus: IncusSim | undefined;

beforeEach(async () => {
  dir = await makeTempDir('run-jobs');
});
afterEach(async () => {
  incus?.close();
  await clearAway(dir);
});

const job = (name: string, spec: object) => ({
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  metadata: { name },
  spec: { instance: { type: 'Container', image: 'pikaci/dev' }, ...spec },
});

/** Runs jobs in guests that do what a script says. */
async function cijobRun(guest: GuestScript, jobs: object[], ...flags: string[]): Promise<CommandResult> {
  incus = new IncusSim({ guest });
  incus.store.addImage('pikaci/dev', 'container');
  await mkdir(join(dir, 'incus'));
  await incus.listen(join(dir, 'incus', 'unix.socket'));
  const file = join(dir, 'jobs.yaml');
  await writeFile(file, jobs.map((one) => JSON.stringify(one)).join('\n---\n'));
  const env = { INCUS_DIR: join(dir, 'incus') };
  return run(process.execPath, [program, 'run', '-f', file, ...flags], { env });
}

/** What each command of these tests prints and ends with. */
const scripts: GuestScript = {
  job: ({ command }) =>
    command === 'bad'
      ? { log: 'going well\nthe reason', exitCode: 3 }
      : {
          runMs: 50,
          log: [
            { atMs: 1, text: 'goo' },
            { atMs: 30, text: 'd\n' },
          ],
        },
};

describe('the logs of several jobs', () => {
  const jobs = [job('good', { command: 'good' }), job('bad', { command: 'bad' })];

  test('are shown line by line with the name of the job, and the end of a failed one is shown again', async () => {
    const { code, stdout, stderr } = await cijobRun(scripts, jobs);
    expect(code).toBe(3);
    expect(stdout.split('\n').sort()).toEqual(['', 'bad  | going well', 'bad  | the reason', 'good | good']);
    expect(stdout.indexOf('going well')).toBeLessThan(stdout.indexOf('the reason'));
    const end = 'default/bad failed, Test: NonZeroExitCode; its log ends with:\n  going well\n  the reason\n';
    expect(stderr.slice(-end.length)).toBe(end);
  });

  test('are not mixed into -o json', async () => {
    const { stdout, stderr } = await cijobRun(scripts, jobs, '-o', 'json');
    expect((JSON.parse(stdout) as CiJob[]).map(({ status }) => status?.exitCode)).toEqual([0, 3]);
    expect(stderr).not.toContain('its log ends with');
  });
});

test('the log of a single job is shown byte for byte', async () => {
  const { stdout, stderr } = await cijobRun(scripts, [job('bad', { command: 'bad' })]);
  expect(stdout).toBe('going well\nthe reason');
  expect(stderr).not.toContain('its log ends with');
});

describe('artifacts that are left out', () => {
  const files = {
    '/artifacts/coverage/a.html': { kind: 'file', content: 'a' },
    '/artifacts/coverage/empty.html': { kind: 'file', content: '' },
  } as const;
  const jobs = [job('build', { command: 'true', artifacts: ['./coverage/*', 'coverage/', '*.xml'] })];

  test('are told beside where the others are saved', async () => {
    const { code, stderr } = await cijobRun({ files }, jobs, '--artifacts', join(dir, 'saved'));
    expect(code).toBe(0);
    const path = join(dir, 'saved', 'build.tar.gz');
    expect(stderr.split('\n').filter((line) => line.startsWith('default/build: artifacts: '))).toEqual(
      [
        `saved as ${path}, ${(await stat(path)).size} bytes`,
        'left out 1: links, and files that are empty or no regular files: coverage/empty.html',
        'no file matches coverage/ (a directory; "coverage/**" is all that is in it), "*.xml"',
      ].map((line) => `default/build: artifacts: ${line}`),
    );
  });

  test('are told without a place for them', async () => {
    const { code, stderr } = await cijobRun({ files }, jobs);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^default\/build: artifacts: there is no place to keep them: .*--artifacts$/m);
  });

  test('are told when that place cannot be written to; the outcome stands', async () => {
    const nowhere = join(dir, 'jobs.yaml', 'nowhere');
    const { code, stderr } = await cijobRun({ files }, jobs, '--artifacts', nowhere);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^default\/build: artifacts: the archive could not be written: /m);
    expect(stderr).toContain('build.tar.gz: ENOTDIR');
  });
});

test('a job with the longest of names has its artifacts saved', async () => {
  const guest: GuestScript = { files: { '/artifacts/x': { kind: 'file', content: 'hi' } } };
  const jobs = [job(`${'a'.repeat(250)}.bc`, { command: 'true', artifacts: ['x'] })];
  const { code } = await cijobRun(guest, jobs, '--artifacts', join(dir, 'saved'));
  expect(code).toBe(0);
  expect(await readdir(join(dir, 'saved'))).toEqual([expect.stringMatching(/^a+-[0-9a-f]{16}\.tar\.gz$/)]);
});

test('jobs of a list are run under their own names and generated ones, and what else is in it is told', async () => {
  const guest: GuestScript = { files: { '/artifacts/x': { kind: 'file', content: 'hi' } } };
  const spec = { command: 'true', artifacts: ['x'] };
  const generated = { ...job('', spec), metadata: { generateName: 'gen-' } };
  const items = [job(`${'a'.repeat(250)}.bc`, spec), generated, { apiVersion: 'v1', kind: 'Pod' }];
  const list = [{ apiVersion: 'v1', kind: 'List', items }];
  const { code, stderr } = await cijobRun(guest, list, '--artifacts', join(dir, 'saved'));
  expect(code).toBe(0);
  expect(stderr).toContain('skipped 1 Pod: only CiJob, IncusHost and Secret are read here\n');
  const [, name = ''] = /CiJob gen- is named (gen-[a-z0-9]{5})\n/.exec(stderr) ?? [];
  expect((await readdir(join(dir, 'saved'))).sort()).toEqual([
    expect.stringMatching(/^a{231}-[0-9a-f]{16}\.tar\.gz$/),
    `${name}.tar.gz`,
  ]);
});
