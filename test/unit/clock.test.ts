import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/command.ts';

const clock = join(import.meta.dirname, '../../controller/clock.ts');

/** A program that has nothing but the clock to wait for. */
const program = `
  import { sleep, systemClock } from ${JSON.stringify(clock)};
  await sleep(systemClock, 300);
  console.log('slept');
`;

test('a program that waits for the clock alone goes on when the time has come', async () => {
  const args = ['--input-type=module', '--eval', program];
  expect(await run(process.execPath, args)).toMatchObject({ code: 0, stdout: 'slept\n', stderr: '' });
});
