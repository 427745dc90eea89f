import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import type { IncusHost } from '../../controller/api/incushost.ts';
import { openLink, type Link } from '../../controller/hosts/link.ts';
import { run, runOk, type CommandResult } from '../support/command.ts';
import { ensurePackages } from '../support/debian-packages.ts';
import { clearAway } from '../support/left-under.ts';
import { Sshd } from '../support/sshd.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { addSource, startBench, type Bench } from './support/bench.ts';
import { Installed } from './support/installed.ts';
import { manifest } from './support/cluster.ts';
import { projectPrefix } from './support/leftovers.ts';
import { keySecret } from './support/hosts.ts';

/*
 * deploy/host/prepare-incus-host.sh against a real sshd and a real Incus. Of the machine itself it touches what it
 * touches on a host: a user, with a name of this test's own, and a sudo rule, both removed again.
 */

const script = join(import.meta.dirname, '../../deploy/host/prepare-incus-host.sh');
const user = `cijob-${randomBytes(4).toString('hex')}`;
const project = `${projectPrefix(tmpdir())}prep${randomBytes(2).toString('hex')}`;
let dir: string;
let bench: Bench;
let installed: Installed;
let sshd: Sshd;
let privateKey: string;

beforeAll(async () => {
  await ensurePackages(['shellcheck'], { reason: 'to check the script for Incus hosts' });
  dir = await makeTempDir('prepare');
  bench = await startBench({ controlPlane: true });
  installed = await Installed.start(bench);
  // As Debian ships it, but for the address: keys come from the users' own files, with the usual checks.
  const settings = { AuthorizedKeysFile: '.ssh/authorized_keys', AllowUsers: user, StrictModes: 'yes' };
  sshd = await Sshd.start({ settings });
  await runOk('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'controller', '-f', join(dir, 'key')]);
  privateKey = await readFile(join(dir, 'key'), 'utf8');
});
afterAll(async () => {
  await installed.stop();
  await sshd.stop();
  await run('rm', ['-f', `/etc/sudoers.d/cijob-host-${user}`, `/usr/local/lib/cijob/ssh-gate-${user}`]);
  await run('rmdir', ['/usr/local/lib/cijob']);
  await run('userdel', ['--force', '--remove', user]);
  const { incus } = bench.host;
  if ((await incus.incus(['project', 'show', project])).code === 0) await incus.deleteProject(project);
  await bench.stop();
  await clearAway(dir);
});

/** The home of the user that the script made. */
function home(): string {
  return execFileSync('getent', ['passwd', user]).toString().split(':')[5] ?? '';
}

async function prepare(via: 'Socket' | 'Sudo', ...more: string[]): Promise<CommandResult> {
  const { incus, sources } = bench.host;
  const hostKey = join(dir, 'host_key.pub');
  await writeFile(hostKey, `${await sshd.hostKey()} root@host\n`);
  const flags = {
    name: 'prepared',
    'public-key': `${join(dir, 'key')}.pub`,
    address: sshd.address,
    port: String(sshd.port),
    user,
    project,
    source: sources,
    instances: '3',
    via,
    socket: incus.socketPath,
    'host-key': hostKey,
  };
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
  return run(script, [...args, ...more], { env: incus.env });
}

function ssh(...args: string[]): Promise<CommandResult> {
  const options = [
    'BatchMode=yes',
    'StrictHostKeyChecking=no',
    'UserKnownHostsFile=/dev/null',
    'LogLevel=ERROR',
  ];
  const to = ['-F', 'none', '-i', join(dir, 'key'), '-p', String(sshd.port), '-l', user];
  return run('ssh', [...options.flatMap((option) => ['-o', option]), ...to, ...args], { timeoutMs: 20_000 });
}

async function link(host: IncusHost): Promise<Link> {
  return openLink(host.spec.connection, () => Promise.resolve(privateKey));
}

/** What Incus answers at the other end of a link. */
async function askIncus(opened: Link): Promise<string> {
  const stream = await opened.dial();
  return new Promise((resolve, reject) => {
    let text = '';
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes('"api_version"')) resolve(text);
    });
    stream.on('error', reject);
    stream.on('close', () => resolve(text));
    stream.write('GET /1.0 HTTP/1.1\r\nHost: incus\r\nConnection: close\r\n\r\n');
  });
}

describe.each(['Socket', 'Sudo'] as const)('a host prepared for via: %s', (via) => {
  let host: IncusHost;
  let printed: string;

  beforeAll(async () => {
    const prepared = await prepare(via);
    expect(prepared, prepared.stderr).toMatchObject({ code: 0 });
    printed = prepared.stdout;
    host = parse(printed) as IncusHost;
  });

  test('is a manifest that the API server takes, and pins the key that sshd shows', async () => {
    await bench.controlPlane.kubectlOk(['apply', '--dry-run=server', '-f', '-'], { input: printed });
    expect(host.spec.connection.ssh).toMatchObject({ user, via, hostKeys: [await sshd.hostKey()] });
  });

  test('a second run changes nothing', async () => {
    const { incus } = bench.host;
    const state = async () => [
      await incus.incusOk(['project', 'show', project]),
      await incus.incusOk(['profile', 'show', 'default', '--project', project]),
      execFileSync('sh', ['-c', `cat ~${user}/.ssh/authorized_keys; id ${user}`]).toString(),
    ];
    const before = await state();
    expect((await prepare(via)).stdout).toBe(printed);
    expect(await state()).toEqual(before);
  });

  test('lets the controller to Incus, and lets it follow links', async () => {
    const opened = await link(host);
    try {
      expect(await askIncus(opened)).toContain('"api_version":"1.0"');
      const { sources } = bench.host;
      expect(await opened.resolve(sources)).toEqual({ path: sources, directory: true });
    } finally {
      opened.close();
    }
  });

  test('lets the user itself open the socket only where the controller does', () => {
    const groups = execFileSync('id', ['-nG', user]).toString().trim().split(' ');
    const group = execFileSync('stat', ['--format=%G', bench.host.incus.socketPath]).toString().trim();
    expect(groups.includes(group), `${groups.join(' ')} and ${group}`).toBe(via === 'Socket');
    expect(existsSync(`/usr/local/lib/cijob/ssh-gate-${user}`)).toBe(via === 'Sudo');
  });

  test('leaves nothing to the user that decides who is let in', () => {
    const paths = [home(), join(home(), '.ssh'), join(home(), '.ssh/authorized_keys')];
    const told = execFileSync('stat', ['--format=%U %a', ...paths]).toString();
    expect(told).toBe('root 755\nroot 755\nroot 644\n');
  });

  test('gives the key no shell, no command and no terminal', async () => {
    for (const command of [['id'], ['-tt'], ['sh', '-c', 'id'], ['sudo', '-n', 'id']]) {
      const { stdout, code } = await ssh(
        ...(command[0] === '-tt' ? ['-tt', sshd.address] : [sshd.address, ...command]),
      );
      expect(stdout).not.toContain('uid=');
      expect(code).not.toBe(0);
    }
  });

  test('lets it write no file', async () => {
    const batch = join(dir, 'batch');
    await writeFile(batch, `put ${batch} written\n`);
    const flags = ['-F', 'none', '-i', join(dir, 'key'), '-P', String(sshd.port)];
    const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null'];
    const sftp = [
      ...flags,
      ...options.flatMap((option) => ['-o', option]),
      '-b',
      batch,
      `${user}@${sshd.address}`,
    ];
    const put = await run('sftp', sftp);
    expect(put.code).not.toBe(0);
    expect(put.stderr).toMatch(/Permission denied|failure/i);
  });

  test('forwards no TCP, and no other socket', async () => {
    expect(await reachesThrough()).toBe(false);
    const { ssh: own } = host.spec.connection;
    const other = join(dir, 'other.socket');
    const server = createServer((socket) => socket.end('reached'));
    await new Promise<void>((resolve) => server.listen(other, resolve));
    await chmod(dir, 0o711);
    await chmod(other, 0o666);
    const opened = await link({
      ...host,
      spec: { ...host.spec, connection: { ssh: { ...own, socketPath: other } as typeof own } },
    });
    try {
      expect(await askIncus(opened).catch(() => '')).not.toContain('reached');
    } finally {
      opened.close();
      server.close();
    }
  });

  test('listens for nobody by TCP', async () => {
    expect(await listensAt('127.0.0.1:0:127.0.0.1:9')).toBe(false);
  });

  test('runs a job, mount and all', async () => {
    await bench.controlPlane.kubectlOk(['apply', '-f', '-'], {
      input: JSON.stringify(keySecret('prepared', privateKey)),
    });
    await installed.apply({
      ...host,
      metadata: { name: 'prepared', labels: { prepared: via } },
    });
    // A pool of directories holds no container to its size; and without --network there is no way to anybody.
    for (const condition of ['Restricted', 'RootDiskEnforced=False', 'Isolated']) {
      const wait = ['wait', `--for=condition=${condition}`, 'incushost/prepared', '--timeout=60s'];
      await installed.kubectl(wait);
    }
    const source = await addSource(bench.host, `prepared-${via.toLowerCase()}`, { 'a.txt': 'hello\n' });
    const name = `on-${via.toLowerCase()}`;
    await installed.apply(
      manifest(name, {
        command: 'grep -q hello /workspace/snapshot/a.txt',
        hostSelector: { matchLabels: { prepared: via } },
        mounts: [{ name: 'snapshot', source }],
      }),
    );
    const [job] = await installed.finished(name);
    expect(job?.status).toMatchObject({ phase: 'Succeeded', host: 'prepared' });
  });
});

describe('what authorized_keys cannot say', () => {
  test('a socket to listen on, until sshd_config allows local forwarding only, which is all the controller needs', async () => {
    const prepared = await prepare('Socket');
    const host = parse(prepared.stdout) as IncusHost;
    const settings = { AuthorizedKeysFile: '.ssh/authorized_keys', AllowUsers: user, StrictModes: 'yes' };
    await sshd.reconfigure({ ...settings, AllowStreamLocalForwarding: 'local' });
    expect(await listensAt(`/tmp/${user}.socket:127.0.0.1:9`)).toBe(false);
    const opened = await link(host);
    try {
      expect(await askIncus(opened)).toContain('"api_version":"1.0"');
    } finally {
      opened.close();
    }
  });
});

/** Whether sshd listens for the key at an address or socket, for others to come in by. */
async function listensAt(what: string): Promise<boolean> {
  const { stderr, code } = await ssh('-o', 'ExitOnForwardFailure=yes', '-N', '-R', what, sshd.address);
  return code !== 255 || !/remote port forwarding failed|forward.*failed/i.test(stderr);
}

/** Whether the key gets through to a TCP port of the machine. */
async function reachesThrough(): Promise<boolean> {
  let reached = false;
  const target: Server = createServer((socket) => {
    reached = true;
    socket.destroy();
  });
  await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
  const { port } = target.address() as { port: number };
  await ssh('-W', `127.0.0.1:${port}`, sshd.address);
  target.close();
  return reached;
}

describe('the user of another', () => {
  const other = `${user}-not`;
  beforeAll(() => runOk('useradd', ['--create-home', other]));
  afterAll(() => run('userdel', ['--force', '--remove', other]));

  test.each(['root', 'daemon', other])('is not taken over: %s', async (name) => {
    const before = execFileSync('id', [name]).toString();
    const { code, stdout, stderr } = await prepare('Socket', '--user', name);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(`the user ${name} exists already and is not of this script`);
    expect(execFileSync('id', [name]).toString()).toBe(before);
  });

  test('is, when it is handed over', async () => {
    await runOk('usermod', ['--comment', 'cijob-controller', other]);
    expect(await prepare('Socket', '--user', other)).toMatchObject({ code: 0 });
  });
});

test('a link where the keys should be is not followed', async () => {
  const [ssh, target] = [join(home(), '.ssh'), join(dir, 'elsewhere')];
  await mkdir(target);
  await rename(ssh, `${ssh}.kept`);
  await symlink(target, ssh);
  const { code, stderr } = await prepare('Socket');
  await rm(ssh);
  await rename(`${ssh}.kept`, ssh);
  expect(code).toBe(1);
  expect(stderr).toContain(`${ssh} is a link`);
  expect(await readdir(target)).toEqual([]);
});

test('limits of the project are set, and changed', async () => {
  const { incus } = bench.host;
  for (const memory of ['4GiB', '8GiB']) {
    expect(await prepare('Socket', '--limit', `memory=${memory}`, '--limit', 'instances=7')).toMatchObject({
      code: 0,
    });
    expect((await incus.incusOk(['project', 'get', project, 'limits.memory'])).trim()).toBe(memory);
    expect((await incus.incusOk(['project', 'get', project, 'limits.instances'])).trim()).toBe('7');
  }
});

describe('a mistake', () => {
  test.each([
    ['--source', '/etc/../root', 'no plain absolute path'],
    ['--user', 'root; id', 'no user name'],
    ['--public-key', 'command="id" ssh-ed25519 AAAA', 'no single public key'],
    ['--public-key', 'ssh-ed25519 AAAA\nssh-ed25519 BBBB', 'no single public key'],
    ['--pool', 'nowhere', 'there is no storage pool nowhere'],
    ['--via', 'Telnet', '--via is Socket or Sudo'],
    ['--limit', 'processes=1', 'is no limit'],
    ['--wrong', 'x', 'unknown option --wrong'],
  ])('%s %s is told, and nothing is changed', async (flag, value, told) => {
    const { code, stderr, stdout } = await prepare('Socket', flag, value);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(told);
  });
});

test('shellcheck has nothing to say', async () => {
  expect(await run('shellcheck', [script, join(script, '../../render')])).toMatchObject({
    code: 0,
    stdout: '',
  });
});
