import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { docBlocks, unnamedFences } from '../../support/doc-blocks.ts';

/* README.md promises: a block of commands is run by a test, or says that it needs something of the reader's own. */

const repository = join(import.meta.dirname, '../../..');
const docs = (await readdir(join(repository, 'docs'), { recursive: true }))
  .filter((file) => file.endsWith('.md'))
  .map((file) => `docs/${file}`);
const pages = ['README.md', ...docs.sort()];

/** The source of every test that may follow documents. */
async function followers(): Promise<string[]> {
  const dir = join(repository, 'test/e2e');
  const files = (await readdir(dir)).filter((file) => file.endsWith('.test.ts'));
  const sources = await Promise.all(files.map((file) => readFile(join(dir, file), 'utf8')));
  return sources.filter((source) => source.includes('reader.follow('));
}

describe('the commands of a page', () => {
  it.each(pages)(
    '%s: each block is tested, or says in its first line what of yours it needs',
    async (page) => {
      const blocks = await docBlocks(page);
      expect(blocks.filter(({ tested, needs }) => tested === (needs !== undefined))).toEqual([]);
    },
  );

  it.each(pages)('%s: what is marked as tested is followed by a test', async (page) => {
    const tested = (await docBlocks(page)).some((block) => block.tested);
    const followed = (await followers()).some((source) => source.includes(`'${page}'`));
    expect(followed).toBe(tested);
  });

  it.each(pages)('%s: none stand in a block that does not say that it is shell', async (page) => {
    expect(await unnamedFences(page)).toEqual([]);
  });
});

describe('docBlocks', () => {
  it('finds the blocks of README.md, inside lists too, without their indentation', async () => {
    const blocks = await docBlocks('README.md');
    const found = blocks.find(({ commands }) => commands.startsWith('kubectl create namespace ci\n'));
    expect(found).toMatchObject({ title: 'Use it on a cluster', tested: true });
    expect(blocks.map(({ needs }) => needs)).toContain('an Incus host of yours');
  });
});
