import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { savedArchives } from '../../../controller/cli/saved-archives.ts';
import { keyOf } from '../../../controller/reconcile/names.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

let directory: string;
beforeEach(async () => {
  directory = await makeTempDir('saved');
});
afterEach(() => clearAway(directory));

/** Saves an empty archive of each job, and returns the files there are then. */
async function saved(...jobs: { namespace: string; name: string }[]): Promise<string[]> {
  const said: string[] = [];
  const sink = savedArchives(directory, jobs.map(keyOf), (line) => said.push(line));
  for (const job of jobs) {
    const draft = await sink.begin(
      { ...job, instance: 'cijob-1', uid: 'uid', attempt: 1 },
      Buffer.from('end'),
    );
    await draft?.publish();
  }
  const files = (await readdir(directory)).sort();
  // Where each is, is said: a name may be cut.
  for (const file of files) expect(said.join('\n')).toContain(`saved as ${join(directory, file)}, 3 bytes`);
  return files;
}

test('a job with the longest of names has its archive', async () => {
  expect(await saved({ namespace: 'ci', name: 'a'.repeat(253) })).toEqual([
    expect.stringMatching(/^a{231}-[0-9a-f]{16}\.tar\.gz$/),
  ]);
});

test('jobs of one name in two namespaces have an archive each', async () => {
  const jobs = [
    { namespace: 'ci', name: 'build' },
    { namespace: 'dev', name: 'build' },
    { namespace: 'ci', name: 'test' },
  ];
  expect(await saved(...jobs)).toEqual(['ci_build.tar.gz', 'dev_build.tar.gz', 'test.tar.gz']);
});
