import { matchesGlob } from 'node:path/posix';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileGlobs } from '../../../controller/hosts/globs.ts';

const matches = (glob: string, path: string) => compileGlobs([glob]).after(path).matches;
const leadsTo = (globs: readonly string[], directory: string) =>
  compileGlobs(globs).after(`${directory}/`).leadsOn;

describe('globs', () => {
  it.each<[glob: string, matching: string[], others: string[]]>([
    ['a.txt', ['a.txt'], ['b.txt', 'a.txt.gz', 'd/a.txt', 'a-txt']],
    ['*.txt', ['a.txt', '.txt', '.hidden.txt'], ['d/a.txt', 'a.txtx']],
    ['d/*', ['d/a', 'd/.b'], ['d', 'd/e/f']],
    ['?.log', ['a.log', 'é.log', '😀.log'], ['.log', 'ab.log', '/.log']],
    ['**/*.xml', ['a.xml', 'd/a.xml', 'd/e/f/a.xml'], ['a.xml/b', 'xml']],
    ['d/**', ['d/a', 'd/e/f'], ['d', 'd/', 'da/e']],
    ['d/**/a', ['d/a', 'd/e/a', 'd/e/f/a'], ['d/ea', 'a', 'd/e/b']],
    ['**', ['a', 'd/e'], ['']],
    ['a**b', ['ab', 'axb'], ['a/b']],
    ['[a-c]x', ['ax', 'cx'], ['dx', 'x', '-x']],
    ['[!a-c]x', ['dx'], ['ax', '/x', 'x']],
    ['[]-]x', [']x', '-x'], ['ax']],
    ['[ab', ['[ab'], ['a', 'b']],
    ['{a,b/c}.txt', ['a.txt', 'b/c.txt'], ['b.txt', 'ab/c.txt', '{a,b/c}.txt']],
    ['x{,.{gz,xz}}', ['x', 'x.gz', 'x.xz'], ['x.', 'x.bz2']],
    ['{**/,}r/*', ['r/a', 'd/r/a'], ['r', 'rr/a']],
    ['{a,b', ['{a,b'], ['a', 'b']],
    ['\\*\\{a', ['*{a'], ['x{a', '\\*\\{a']],
    ['a\\', ['a\\'], ['a']],
  ])('%s', (glob, matching, others) => {
    expect(matching.filter((path) => !matches(glob, path))).toEqual([]);
    expect(others.filter((path) => matches(glob, path))).toEqual([]);
  });

  it('lead into those directories below which something can match, and no others', () => {
    expect(leadsTo(['reports/*.xml'], 'reports')).toBe(true);
    expect(leadsTo(['reports/*.xml'], 'target')).toBe(false);
    expect(leadsTo(['reports/*.xml'], 'reports/deep')).toBe(false);
    expect(leadsTo(['*.xml'], 'reports')).toBe(false);
    expect(leadsTo(['**/*.xml'], 'target/debug')).toBe(true);
    expect(leadsTo(['{a,b}/c/d', 'x'], 'b/c')).toBe(true);
    expect(leadsTo(['{a,b}/c/d', 'x'], 'x')).toBe(false);
    expect(leadsTo(['reports/'], 'reports')).toBe(false);
    expect(leadsTo([], 'reports')).toBe(false);
  });

  it('say the same of a path and of its beginning followed by its end', () => {
    const word = fc.stringMatching(/^[ab.]{1,3}$/);
    const glob = fc.stringMatching(/^[ab.*?/{},[\]!-]{1,12}$/);
    fc.assert(
      fc.property(
        fc.array(glob, { maxLength: 3 }),
        fc.array(word, { minLength: 2, maxLength: 4 }),
        (globs, words) => {
          const path = words.join('/');
          const position = compileGlobs(globs);
          const directory = position.after(`${words.slice(0, -1).join('/')}/`);
          expect(directory.after(words.at(-1) ?? '').matches).toBe(position.after(path).matches);
          // What matches is never missed by not going where it is.
          if (position.after(path).matches) expect(directory.leadsOn).toBe(true);
        },
      ),
    );
  });

  it('mean what they mean elsewhere, where no name begins with a dot', () => {
    const part = fc.constantFrom('a', 'b', 'ab', '*', '?', 'a*', '*b', '[ab]', '{a,b}', '**');
    const word = fc.stringMatching(/^[ab]{1,2}$/);
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 1, maxLength: 4 }),
        fc.array(word, { minLength: 1, maxLength: 4 }),
        (parts, words) => {
          // They differ on whether dir/** is also dir itself, which is no file.
          const [glob, path] = [parts.join('/'), words.join('/')];
          if (parts.at(-1) === '**' && matchesGlob(path, parts.slice(0, -1).join('/'))) return;
          expect(matches(glob, path), `${glob} ${path}`).toBe(matchesGlob(path, glob));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('stay quick where a backtracking matcher would not come back', () => {
    const hostile = [`${'*a'.repeat(127)}b`, `${'{a,'.repeat(60)}${'}'.repeat(60)}`, '{a,b}'.repeat(51)];
    const position = compileGlobs(hostile).after('a'.repeat(255));
    expect(position.matches).toBe(false);
    expect(position.cost).toBeLessThan(1000);
  });
});
