import { readdir, readFile, readlink, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from './command.ts';

/**
 * Processes that belong to what lives in a directory: the path stands in their command line or environment (daemons
 * and their helpers), or their root file system comes from there (processes in a container).
 */
export async function processesUnder(dir: string): Promise<{ pid: number; command: string }[]> {
  const ownMounts = await readlink('/proc/self/ns/mnt');
  const pids = (await readdir('/proc')).map(Number).filter((pid) => pid > 1 && pid !== process.pid);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const read = (name: string) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
      const command = (await read('cmdline')).replaceAll('\0', ' ').trim();
      const mentions = command.includes(dir) || (await read('environ')).includes(dir);
      const mounts = await readlink(`/proc/${pid}/ns/mnt`).catch(() => ownMounts);
      // In a container the directory is not a mount point but the origin of the root. (As a mount point it also stands in
      // whatever was just given mounts of its own, and those of the machine with them.)
      const origins = (await read('mountinfo')).split('\n').map((line) => line.split(' ')[3]);
      const inside = mounts !== ownMounts && origins.some((origin) => origin?.startsWith(`${dir}/`));
      return mentions || inside ? { pid, command } : undefined;
    }),
  );
  return found.filter((process) => process !== undefined);
}

/** Where something is mounted below a directory, the deepest first. */
export async function mountsUnder(dir: string): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const points = lines.map((line) => line.split(' ')[4]?.replaceAll('\\040', ' ') ?? '');
  return points.filter((point) => point === dir || point.startsWith(`${dir}/`)).reverse();
}

/**
 * The control groups that LXC made for the containers among these processes, in every hierarchy. LXC's monitor removes
 * them when a container stops; when the monitor is killed too, nobody does.
 */
async function containerGroups(pids: readonly number[]): Promise<string[]> {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').map((line) => line.split(' '));
  const hierarchies = mounts.filter((fields) => fields.some((f) => f === 'cgroup' || f === 'cgroup2'));
  const tables = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '')),
  );
  const names = [...tables.join('\n').matchAll(/:(\/(?:[^/\n]+\/)*lxc\.(?:payload|monitor)\.[^/\n]+)/g)];
  const paths = new Set(names.map((match) => match[1] ?? ''));
  return hierarchies.flatMap((fields) => [...paths].map((path) => join(fields[4] ?? '', path)));
}

/** Removes a control group (its path in the file system) and those inside it, as far as they are empty of processes. */
export async function removeGroup(group: string): Promise<void> {
  const entries = await readdir(group, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) if (entry.isDirectory()) await removeGroup(join(group, entry.name));
  await rmdir(group).catch(() => undefined);
}

/**
 * Ends every process that belongs to a directory, unmounts everything below it, and removes it, with the control groups
 * of the containers that were running. Throws when something of it cannot be made to go away.
 *
 * @param except process ids to leave alone: the caller's own helpers.
 */
export async function clearAway(dir: string, except: readonly number[] = []): Promise<void> {
  const deadline = performance.now() + 20_000;
  const groups = new Set<string>();
  for (;;) {
    const processes = (await processesUnder(dir)).filter(({ pid }) => !except.includes(pid));
    for (const group of await containerGroups(processes.map(({ pid }) => pid))) groups.add(group);
    for (const { pid } of processes) kill(pid);
    for (const point of await mountsUnder(dir)) await run('umount', [point]);
    const mounts = await mountsUnder(dir);
    if (processes.length === 0 && mounts.length === 0) break;
    if (performance.now() > deadline) {
      const what = [...processes.map(({ pid, command }) => `process ${pid} (${command})`), ...mounts];
      throw new Error(`these do not go away: ${what.join(', ')}`);
    }
    await delay(50);
  }
  for (const group of groups) await removeGroup(group);
  await rm(dir, { recursive: true, force: true, maxRetries: 3 });
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It went by itself.
  }
}
