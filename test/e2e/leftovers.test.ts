import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runOk } from '../support/command.ts';
import { mountsUnder } from '../support/left-under.ts';
import { SshUser } from '../support/ssh-user.ts';
import { IncusServer } from '../support/incus-server.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { clearLeftovers, findLeftovers, projectPrefix } from './support/leftovers.ts';

test('what a run leaves behind is found, and is cleared away', async () => {
  const runDir = await makeTempDir('e2e');
  onTestFinished(() => (existsSync(runDir) ? clearLeftovers(runDir) : undefined));
  expect(await findLeftovers(runDir)).toEqual([]);

  const daemon = spawn('sleep', ['300'], { env: { TMPDIR: runDir }, detached: true, stdio: 'ignore' });
  const gone = once(daemon, 'exit');
  const mountPoint = join(runDir, 'mounted');
  await mkdir(mountPoint);
  await runOk('mount', ['-t', 'tmpfs', 'none', mountPoint]);
  await mkdir(join(runDir, 'user'));
  const user = await SshUser.create(join(runDir, 'user'), { incus: new IncusServer('/nowhere') });

  const group = join('/sys/fs/cgroup', await aHierarchy(), `lxc.payload.${projectPrefix(runDir)}1_guest`);
  await mkdir(group);

  expect(await findLeftovers(runDir)).toEqual([
    `process ${daemon.pid ?? 0}: sleep 300`,
    `mount ${mountPoint}`,
    `directory ${mountPoint}`,
    `directory ${join(runDir, 'user')}`,
    `user ${user.name}`,
    `sudo rule /etc/sudoers.d/${user.name}`,
    `control group ${group}`,
  ]);

  await clearLeftovers(runDir);
  expect(await gone).toEqual([null, 'SIGKILL']);
  expect(await mountsUnder(runDir)).toEqual([]);
  expect(existsSync(runDir)).toBe(false);
  expect(existsSync(`/etc/sudoers.d/${user.name}`)).toBe(false);
  expect(existsSync(group)).toBe(false);
  await expect(runOk('id', [user.name])).rejects.toThrow('no such user');
});

/** The directory of one hierarchy of control groups: none where there is only the one of version 2. */
async function aHierarchy(): Promise<string> {
  const names = await readdir('/sys/fs/cgroup');
  return names.includes('pids') ? 'pids' : '.';
}
