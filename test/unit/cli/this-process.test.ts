import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { processLives, thisProcess } from '../../../controller/cli/this-process.ts';

test('this process lives, and another one that was given its number does not stand for it', () => {
  const self = thisProcess();
  expect(self).toMatchObject({ pid: process.pid, place: expect.stringMatching(/^[0-9a-f]{32}$/) as string });
  expect(processLives(self)).toBe(true);
  expect(processLives({ ...self, start: '1' })).toBe(false);
});

test('the place is the same for all processes of a machine, and does not show its id', () => {
  const { place } = thisProcess();
  expect(thisProcess().place).toBe(place);
  expect(place).not.toBe(readFileSync('/etc/machine-id', 'utf8').trim());
});

test('a process that has been killed is dead, also before anybody has waited for it', async () => {
  // A shell that starts a process, and becomes one that never waits for it. (The shell itself would, between commands.)
  const shell = spawn('sh', ['-c', 'sleep 60 & echo $!; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [said] = (await once(shell.stdout, 'data')) as [Buffer];
  const pid = Number(said.toString());
  await expect.poll(() => readFileSync(`/proc/${shell.pid}/comm`, 'utf8')).toBe('sleep\n');
  process.kill(pid, 'SIGKILL');
  const { place } = thisProcess();
  const start = () => /\) \S(?: \S+){18} (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1] ?? '';
  await expect.poll(() => readFileSync(`/proc/${pid}/stat`, 'utf8')).toMatch(/\) Z /);
  expect(processLives({ place, pid, start: start() })).toBe(false);
  const ended = once(shell, 'exit');
  shell.kill('SIGKILL');
  await ended;
});
