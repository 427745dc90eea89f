import { spawn } from 'node:child_process';
import { join } from 'node:path';

/*
 * `npm test [-- vitest's arguments]`: format, lint and types are checked while the unit and component tests run, which
 * mostly wait. What the checks have to say is told at the end, so that it is not lost between the tests.
 */

const bin = join(import.meta.dirname, '../node_modules/.bin');

/** Runs a program of the packages. Resolves to its exit code, and what it printed if that was not shown at once. */
async function run(
  program: string,
  args: readonly string[],
  show: boolean,
): Promise<{ code: number; said: string }> {
  const child = spawn(join(bin, program), args, {
    stdio: ['ignore', show ? 'inherit' : 'pipe', show ? 'inherit' : 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  }
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode) => resolve(exitCode ?? 1));
  });
  return { code, said };
}

/** One check after the other, each whatever the others say: they share one core. */
async function checks(): Promise<{ code: number; said: string }> {
  let code = 0;
  let said = '';
  for (const [name, program, ...args] of [
    ['format', 'prettier', '--check', '.'],
    ['lint', 'eslint', '.'],
    ['types', 'tsc'],
  ] as const) {
    const result = await run(program, args, false);
    code ||= result.code;
    said += `${name}: ${result.code === 0 ? 'ok\n' : `FAILED\n${result.said}`}`;
  }
  return { code, said };
}

const [tests, others] = await Promise.all([run('vitest', ['run', ...process.argv.slice(2)], true), checks()]);
console.log(others.said);
process.exitCode = tests.code || others.code;
