import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readInput } from '../../../controller/cli/input.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { goodJob } from '../api/bad-manifests.ts';

let directory: string;
beforeEach(async () => {
  directory = await makeTempDir('input');
});
afterEach(() => clearAway(directory));

const at = (name: string) => join(directory, name);
const write = (name: string, content: string | Buffer) => writeFile(at(name), content);
const job = (metadata: object) => JSON.stringify({ ...goodJob(), metadata });
const namesIn = async (...paths: string[]) => {
  const { jobs } = await readInput(paths);
  return jobs.map(({ metadata }) => metadata.name);
};

describe('the manifests of a directory', () => {
  test('are those whose names end as kubectl wants it, in order, and not those of directories in it', async () => {
    await write('b.yaml', job({ name: 'b' }));
    await write('a.json', job({ name: 'a' }));
    await write('c.yml', job({ name: 'c' }));
    await write('notes.txt', 'no manifest');
    await mkdir(at('deeper.yaml'));
    await symlink(at('b.yaml'), at('link.txt'));
    expect(await namesIn(directory)).toEqual(['a', 'b', 'c']);
  });

  test('are none where there is no such file, which is said', async () => {
    await write('notes.txt', '');
    await expect(readInput([directory])).rejects.toThrow(
      `${directory}: there is no file .json, .yaml, .yml in it`,
    );
  });

  test('may be some without an object, which is said', async () => {
    await write('a.yaml', '# not yet\n');
    await write('b.yaml', job({ name: 'b' }));
    const { jobs, notes } = await readInput([directory]);
    expect(jobs).toHaveLength(1);
    expect(notes).toEqual([`${at('a.yaml')}: holds no object`]);
  });
});

test('a file that is too large is not read to its end', async () => {
  await write('large.yaml', Buffer.alloc(3 * 2 ** 20, '#'));
  await expect(readInput([at('large.yaml')])).rejects.toThrow(
    'cannot be read: it has more than 2097154 bytes',
  );
});

test('names that are generated are told, and so is what is passed over', async () => {
  const pod = JSON.stringify({ apiVersion: 'v1', kind: 'Pod' });
  await write(
    'jobs.yaml',
    [job({ generateName: 'a-' }), pod, pod, job({ generateName: 'a-' })].join('\n---\n'),
  );
  let end = 0;
  const { jobs, notes } = await readInput([at('jobs.yaml')], () => end++);
  expect(jobs.map(({ metadata }) => metadata.name)).toEqual(['a-bbbbb', 'a-bbbbc']);
  expect(notes).toEqual([
    `${at('jobs.yaml')}: CiJob a- is named a-bbbbb`,
    `${at('jobs.yaml')}: CiJob a- is named a-bbbbc`,
    `${at('jobs.yaml')}: skipped 2 Pod: only CiJob, IncusHost and Secret are read here`,
  ]);
  const [first] = await namesIn(at('jobs.yaml'));
  expect(first).toMatch(/^a-[a-z0-9]{5}$/);
});

test('files without a CiJob are refused, with what was passed over', async () => {
  await write('pod.yaml', JSON.stringify({ apiVersion: 'v1', kind: 'Pod' }));
  await write('empty.yaml', '');
  await expect(readInput([at('pod.yaml'), at('empty.yaml')])).rejects.toThrow(
    /there is no CiJob in it\n.*pod.yaml: skipped 1 Pod: .*\n.*empty.yaml: holds no object$/,
  );
});
