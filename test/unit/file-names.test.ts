import { basename, dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import { draftPathOf, fileNameOf } from '../../controller/file-names.ts';
import { isDraft } from '../../controller/logs/archive-file.ts';

const longest = 'a'.repeat(253);

describe('the file of an object', () => {
  it('is its name and an ending', () => {
    expect(fileNameOf('job', '.tar.gz')).toBe('job.tar.gz');
    expect(fileNameOf('a'.repeat(248), '.tar.gz')).toBe(`${'a'.repeat(248)}.tar.gz`);
  });

  it('has a name that fits where the object has a longer one: one of its own, and always the same', () => {
    const name = fileNameOf(longest, '.tar.gz');
    expect(name).toHaveLength(255);
    expect(name).toMatch(/^a+-[0-9a-f]{16}\.tar\.gz$/);
    expect(fileNameOf(longest, '.tar.gz')).toBe(name);
    expect(fileNameOf(`${'a'.repeat(252)}b`, '.tar.gz')).not.toBe(name);
  });
});

describe('the file that is not whole yet', () => {
  it.each([`/kept/${longest}.gz`, `/kept/${'é'.repeat(127)}`, '/kept/job.tar.gz', 'job.tar.gz'])(
    'lies beside %s, under a name that fits and that is another each time',
    (path) => {
      const draft = draftPathOf(path, '.new');
      expect(dirname(draft)).toBe(dirname(path));
      expect(Buffer.byteLength(basename(draft))).toBeLessThanOrEqual(255);
      expect(draft).not.toContain('\uFFFD');
      expect(isDraft(draft)).toBe(true);
      expect(draftPathOf(path, '.new')).not.toBe(draft);
    },
  );
});
