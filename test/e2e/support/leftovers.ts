import { readdir, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { run } from '../../support/command.ts';
import { clearAway, mountsUnder, processesUnder, removeGroup } from '../../support/left-under.ts';
import { sshUserMark } from '../../support/ssh-user.ts';

const sudoersDir = '/etc/sudoers.d';
const groupRoot = '/sys/fs/cgroup';

/**
 * What a finished run has left on the machine, in words: processes it started (they carry its directory in their
 * environment), mounts, directories, users, sudo rules. Empty is how it should be.
 */
export async function findLeftovers(runDir: string): Promise<string[]> {
  const processes = await processesUnder(runDir);
  return [
    ...processes.map(({ pid, command }) => `process ${pid}: ${command}`),
    ...(await mountsUnder(runDir)).map((point) => `mount ${point}`),
    ...(await readdir(runDir)).map((name) => `directory ${join(runDir, name)}`),
    ...(await usersOf(runDir)).map((name) => `user ${name}`),
    ...(await sudoRulesOf(runDir)).map((file) => `sudo rule ${file}`),
    ...(await groupsOf(runDir)).map((path) => `control group ${path}`),
  ];
}

/** What the names of a run's Incus projects begin with: LXC names control groups after project and instance. */
export function projectPrefix(runDir: string): string {
  return `e2e-${basename(runDir).split('-').at(-1) ?? ''}-`;
}

/** Makes all of it go away. */
export async function clearLeftovers(runDir: string): Promise<void> {
  for (const file of await sudoRulesOf(runDir)) await rm(file, { force: true });
  const users = await usersOf(runDir);
  const groups = await groupsOf(runDir);
  await clearAway(runDir);
  for (const group of groups) await removeGroup(group);
  for (const name of users) await run('userdel', ['--force', name]);
}

async function usersOf(runDir: string): Promise<string[]> {
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  return accounts
    .filter(([, , , , comment]) => comment?.startsWith(`${sshUserMark}${runDir}/`))
    .map(([name]) => name ?? '');
}

async function sudoRulesOf(runDir: string): Promise<string[]> {
  const names = await readdir(sudoersDir).catch(() => []);
  const files = names.filter((name) => name.startsWith('cijob-')).map((name) => join(sudoersDir, name));
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
  return files.filter((_, index) => texts[index]?.includes(`${runDir}/`));
}

async function groupsOf(runDir: string): Promise<string[]> {
  const entries = await readdir(groupRoot, { recursive: true }).catch(() => []);
  const ours = ['payload', 'monitor'].map((part) => `lxc.${part}.${projectPrefix(runDir)}`);
  const names = entries.filter((path) => ours.some((start) => basename(path).startsWith(start)));
  return names.map((path) => join(groupRoot, path));
}
