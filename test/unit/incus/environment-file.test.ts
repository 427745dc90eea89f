import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  environmentFile,
  environmentFilePath,
  fromEnvironmentFile,
} from '../../../controller/incus/environment-file.ts';
import { runOk } from '../../support/command.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

let dir: string;
beforeAll(async () => {
  dir = await makeTempDir('env');
});
afterAll(() => rm(dir, { recursive: true }));

/** Has this machine's bash do what the guest's would, and returns the environment of the command it becomes. */
async function loaded(environment: Record<string, string>): Promise<Map<string, string>> {
  const [file, seen] = [join(dir, 'environment'), join(dir, 'seen')];
  await writeFile(file, environmentFile(environment));
  const [, ...words] = fromEnvironmentFile([
    'env',
    'OWN=its own',
    'sh',
    '-c',
    'cat /proc/$$/environ >"$0"',
    seen,
  ]);
  const argv = words.map((word) => (word === environmentFilePath ? file : word));
  await runOk('bash', argv);
  expect(existsSync(file)).toBe(false);
  const pairs = (await readFile(seen, 'utf8')).split('\0').slice(0, -1);
  return new Map(pairs.map((pair) => [pair.split('=', 1)[0] ?? '', pair.slice(pair.indexOf('=') + 1)]));
}

test('the command gets every variable to the letter, and the file is gone before it begins', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(
        fc
          .stringMatching(/^[A-Z][A-Z0-9_]{0,12}$/)
          .filter((name) => !/^(UID|EUID|PPID|BASH.*|SHELL.*|LC_.*|PATH|OWN|_)$/.test(name)),
        fc.string({ unit: 'grapheme' }).filter((value) => !value.includes('\0')),
      ),
      async (environment) => {
        const seen = await loaded(environment);
        for (const [name, value] of Object.entries(environment)) expect(seen.get(name), name).toBe(value);
        expect(seen.get('OWN')).toBe('its own');
      },
    ),
    { numRuns: 30 },
  );
});

test('what bash itself would act on reaches the command as well', async () => {
  const odd = { IFS: 'x', PS4: '$(exit 9)', TMOUT: '1', POSIXLY_CORRECT: '1', file: 'f', line: 'a\nb\n\n' };
  expect(Object.fromEntries(await loaded(odd))).toMatchObject(odd);
});

test('no file, no command: it would run without what it needs', async () => {
  const [, ...words] = fromEnvironmentFile(['echo', 'ran']);
  await expect(runOk('bash', words)).rejects.toThrow('exited with 1');
});
