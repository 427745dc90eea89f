import { text } from 'node:stream/consumers';
import type { Duplex } from 'node:stream';
import { Client } from 'ssh2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Sshd } from '../support/sshd.ts';
import { Prometheus, promtool } from '../support/prometheus.ts';
import { addSource, startBench, type Bench } from './support/bench.ts';
import { guestAliases } from './support/shared-incus.ts';

let bench: Bench;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true, ownIncusd: true });
});
afterAll(() => bench.stop());

describe('the control plane', () => {
  test('is a real Kubernetes API that kubectl of the same version speaks to', async () => {
    const version = JSON.parse(await bench.controlPlane.kubectlOk(['version', '--output', 'json'])) as {
      clientVersion: { gitVersion: string };
      serverVersion: { gitVersion: string };
    };
    expect(version.serverVersion.gitVersion).toMatch(/^v1\.\d+\.\d+$/);
    expect(version.clientVersion.gitVersion).toBe(version.serverVersion.gitVersion);
    await bench.controlPlane.kubectlOk(['create', 'namespace', 'ci']);
  });

  test('counts the writes to one object', async () => {
    const { controlPlane } = bench;
    const kubectl = (...args: string[]) => controlPlane.kubectlOk(['--namespace', 'default', ...args]);
    await kubectl('create', 'configmap', 'counted', '--from-literal=a=1');
    await kubectl('label', 'configmap', 'counted', 'touched=yes');
    await kubectl('get', 'configmap', 'counted');
    await kubectl('create', 'configmap', 'other');
    const writes = await controlPlane.writesTo({
      resource: 'configmaps',
      namespace: 'default',
      name: 'counted',
    });
    expect(writes.map((event) => event.verb)).toEqual(['create', 'patch']);
  });

  test('lets users and service accounts do what RBAC allows, and no more', async () => {
    const { controlPlane } = bench;
    await controlPlane.kubectlOk(['create', 'serviceaccount', 'robot']);
    const kubeconfigs = [
      await controlPlane.kubeconfigFor({ user: 'ann', groups: ['readers'] }),
      await controlPlane.serviceAccountKubeconfig('default', 'robot'),
    ];
    const asEach = (...args: string[]) =>
      Promise.all(
        kubeconfigs.map(
          async (file) =>
            (await controlPlane.kubectl(['--kubeconfig', file, 'auth', 'can-i', ...args])).stdout,
        ),
      );
    expect(await asEach('list', 'configmaps')).toEqual(['no\n', 'no\n']);
    const subjects = ['--group=readers', '--serviceaccount=default:robot'];
    await controlPlane.kubectlOk(['create', 'role', 'read', '--verb=list', '--resource=configmaps']);
    await controlPlane.kubectlOk(['create', 'rolebinding', 'read', '--role=read', ...subjects]);
    await expect.poll(() => asEach('list', 'configmaps'), { timeout: 10_000 }).toEqual(['yes\n', 'yes\n']);
    expect(await asEach('delete', 'configmaps')).toEqual(['no\n', 'no\n']);
  });

  test('keeps its objects when either part is killed and started again', async () => {
    const { controlPlane } = bench;
    await controlPlane.kubectlOk(['create', 'configmap', 'kept']);
    await controlPlane.kill9('kube-apiserver');
    expect((await controlPlane.kubectl(['get', 'configmap', 'kept'])).code).not.toBe(0);
    await controlPlane.restart('kube-apiserver');
    await controlPlane.kill9('etcd');
    await controlPlane.restart('etcd');
    await expect
      .poll(
        async () => (await controlPlane.kubectl(['get', 'configmap', 'kept', '--output', 'name'])).stdout,
        {
          timeout: 20_000,
        },
      )
      .toBe('configmap/kept\n');
  });
});

describe.for(Object.entries(guestAliases))('a %s guest in the restricted project', ([kind, alias]) => {
  const guest = `guest-${kind}`;
  const inProject = (args: string[]) => ['--project', bench.host.project, ...args];
  const exec = (...args: string[]) => bench.host.incus.exec(bench.host.project, guest, args);

  test('sees a host directory read-only, and nothing outside the allowed ones', async () => {
    const { incus, project } = bench.host;
    const source = await addSource(bench.host, 'snapshot', { 'src/hello': 'hello\n' });
    const snapshot = { type: 'disk', source, path: '/workspace/snapshot', readonly: 'true' };
    const body = { name: guest, source: { type: 'image', alias }, start: true, devices: { snapshot } };
    const post = ['query', '--wait', '-X', 'POST', '--data', JSON.stringify(body)];
    await incus.incusOk([...post, `/1.0/instances?project=${project}`]);

    expect(await exec('cat', '/workspace/snapshot/src/hello')).toMatchObject({ stdout: 'hello\n' });
    expect(await exec('touch', '/workspace/snapshot/new')).toMatchObject({
      stderr: expect.stringContaining('Read-only file system') as string,
    });
    const device = ['config', 'device', 'add', guest, 'etc', 'disk', 'source=/etc', 'path=/host-etc'];
    expect(await incus.incus(inProject(device))).toMatchObject({
      stderr: expect.stringContaining('Disk source path "/etc" not allowed') as string,
    });
  });

  test.for(['kill9', 'halt'] as const)('lives on without incusd (%s), and is reached again', async (end) => {
    const { incus, incusd } = bench.host;
    expect(await exec('touch', '/artifacts/was-here')).toMatchObject({ code: 0 });
    await incusd?.[end]();
    expect(await incus.incus(['list'])).not.toMatchObject({ code: 0 });
    await incusd?.restart();
    expect(await exec('test', '-e', '/artifacts/was-here')).toMatchObject({ code: 0 });
  });
});

describe('the SSH way to a host', () => {
  test("forwards Incus's socket to a user of the group incus-admin", async () => {
    expect(await getThroughSsh(bench.host.sshd, '/1.0', toSocket(bench.host.incus.socketPath))).toMatchObject(
      {
        type: 'sync',
        metadata: { environment: { server: 'incus' } },
      },
    );
  });

  test("opens the bench's own Incus socket to a user with the sudo rule, who may run nothing else as root", async () => {
    await using sshd = await Sshd.start({ incus: bench.host.incus, incusGroup: false });
    const { socketPath } = bench.host.incus;
    const socat = `socat STDIO UNIX-CONNECT:${socketPath}`;
    expect(await getThroughSsh(sshd, '/1.0/projects', byCommand(`sudo -n ${socat}`))).toMatchObject({
      metadata: expect.arrayContaining([`/1.0/projects/${bench.host.project}`]) as string[],
    });
    expect(await sshd.ssh([socat])).toMatchObject({ stdout: '', code: 1 });
    expect(await sshd.ssh(['sudo', '-n', 'id'])).toMatchObject({ stdout: '', code: 1 });
  });

  test('can be cut, closed, opened again, and given new keys', async () => {
    const { sshd } = bench.host;
    const before = { host: await sshd.hostKey(), client: await sshd.privateKey() };
    const hanging = sshd.ssh(['sleep', '60']);
    await expect.poll(() => sshd.cutConnections(), { timeout: 10_000 }).toBe(1);
    expect(await hanging).toMatchObject({ code: 255 });

    await sshd.halt();
    expect(await sshd.ssh(['true'])).toMatchObject({ code: 255 });
    await sshd.restart();
    expect(await sshd.ssh(['true'])).toMatchObject({ code: 0 });

    await sshd.rotateHostKey();
    await sshd.rotateClientKey();
    expect(await sshd.ssh(['true'])).toMatchObject({ code: 0 });
    expect({ host: await sshd.hostKey(), client: await sshd.privateKey() }).not.toMatchObject(before);

    await sshd.reconfigure({ AllowStreamLocalForwarding: 'no' });
    await expect(getThroughSsh(sshd, '/1.0', toSocket(bench.host.incus.socketPath))).rejects.toThrow(
      'open failed',
    );
  });
});

test('Prometheus evaluates queries, and promtool checks what it is given', async () => {
  await using prometheus = await Prometheus.start({ targets: {} });
  expect(await prometheus.query('vector(42)')).toEqual([{ labels: {}, value: 42 }]);
  expect(await prometheus.alerts()).toEqual([]);
  expect((await promtool(['check', 'metrics'], 'not a metric')).code).not.toBe(0);
});

test('two benches stand side by side, and one that goes leaves the other alone', async () => {
  const first = await startBench();
  await using second = await startBench({ hosts: 2 });
  await first.stop();
  for (const host of second.hosts) {
    expect(await host.sshd.ssh(['true'])).toMatchObject({ code: 0 });
    expect(await host.incus.instances(host.project)).toEqual([]);
  }
});

type OpenStream = (client: Client, callback: (error: Error | undefined, stream: Duplex) => void) => void;

const toSocket =
  (path: string): OpenStream =>
  (client, callback) =>
    client.openssh_forwardOutStreamLocal(path, callback);
const byCommand =
  (command: string): OpenStream =>
  (client, callback) =>
    client.exec(command, callback);

/** A GET from Incus, over a stream that sshd opens for us on its side. */
async function getThroughSsh(sshd: Sshd, path: string, open: OpenStream): Promise<unknown> {
  const hostKey = await sshd.hostKey();
  const client = new Client();
  const ready = new Promise<void>((resolve, reject) => client.once('ready', resolve).once('error', reject));
  client.connect({
    host: sshd.address,
    port: sshd.port,
    username: sshd.user,
    privateKey: await sshd.privateKey(),
    hostVerifier: (key: Buffer) => `ssh-ed25519 ${key.toString('base64')}` === hostKey,
  });
  try {
    await ready;
    const stream = await new Promise<Duplex>((resolve, reject) =>
      open(client, (error, channel) => (error ? reject(error) : resolve(channel))),
    );
    stream.write(`GET ${path} HTTP/1.0\r\nHost: incus\r\n\r\n`);
    const answer = await text(stream);
    return JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')));
  } finally {
    client.end();
  }
}
