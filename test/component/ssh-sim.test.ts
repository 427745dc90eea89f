import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import ssh2, { type Client, type ClientChannel } from 'ssh2';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { speakTo } from '../support/incus-endpoint.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { newKey, SshSim } from '../support/ssh-sim.ts';

const socketPath = '/var/lib/incus/unix.socket';
let incus: IncusSim;
let machine: SshSim;
let clients: Client[];

beforeEach(async () => {
  clients = [];
  incus = new IncusSim();
  machine = await SshSim.start(incus);
});
afterEach(async () => {
  for (const client of clients) client.destroy();
  await machine.close();
  incus.close();
});

/** Logs in; rejects with ssh2's error. */
async function login(privateKey = machine.privateKey): Promise<Client> {
  const client = new ssh2.Client();
  clients.push(client);
  client.on('error', () => undefined);
  client.on('connect', () => client.setNoDelay(true));
  client.connect({ host: '127.0.0.1', port: machine.port, username: 'cijob', privateKey });
  await once(client, 'ready');
  return client;
}

function forward(client: Client, path: string): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    client.openssh_forwardOutStreamLocal(path, (error, channel) =>
      error ? reject(error) : resolve(channel),
    );
  });
}

function exec(client: Client, command: string): Promise<ClientChannel> {
  return new Promise((resolve, reject) => {
    client.exec(command, (error, channel) => (error ? reject(error) : resolve(channel)));
  });
}

async function finish(channel: ClientChannel): Promise<{ code: number | null; stderr: string }> {
  let stderr = '';
  channel.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  channel.resume();
  const [code] = (await once(channel, 'close')) as [number | null];
  return { code, stderr };
}

function sftp<T>(
  client: Client,
  ask: (
    wrapper: ssh2.SFTPWrapper,
    answer: (error: (Error & { code?: number | string }) | undefined, value: T) => void,
  ) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    client.sftp((refused, wrapper) => {
      if (refused) reject(refused);
      else ask(wrapper, (error, value) => (error ? reject(error) : resolve(value)));
    });
  });
}

/** Asks Incus something over one stream. */
async function askIncus(stream: Duplex): Promise<number> {
  return (await speakTo(() => stream).request('GET', '/1.0')).status;
}

test('forwards any number of streams to Incus over one connection', async () => {
  const client = await login();
  const streams = await Promise.all(Array.from({ length: 40 }, () => forward(client, socketPath)));
  expect(await Promise.all(streams.map(askIncus))).toEqual(streams.map(() => 200));
  expect([machine.accepted, machine.peakSessions]).toEqual([1, 0]);
});

test('bridges to Incus through sudo, for as long as the stream is open', async () => {
  const client = await login();
  const channel = await exec(client, `sudo -n socat STDIO UNIX-CONNECT:${socketPath}`);
  expect(await askIncus(channel)).toBe(200);
  machine.policy.sudoDenied = true;
  const denied = await finish(await exec(client, `sudo -n socat STDIO UNIX-CONNECT:${socketPath}`));
  expect(denied).toEqual({ code: 1, stderr: 'sudo: a password is required\n' });
});

test('says "open failed", reason 2, whether forwarding is forbidden or the socket is not there', async () => {
  const client = await login();
  const refused = { reason: 2, message: expect.stringContaining('Channel open failure') as string };
  await expect(forward(client, '/no/such/socket')).rejects.toMatchObject(refused);
  machine.policy.forbidForwarding = true;
  await expect(forward(client, socketPath)).rejects.toMatchObject(refused);
  machine.policy.forbidForwarding = false;
  incus.kill();
  await expect(forward(client, socketPath)).rejects.toMatchObject(refused);
  await incus.restart();
  expect(await askIncus(await forward(client, socketPath))).toBe(200);
});

test('allows ten sessions for a connection, and says "open failed" to the eleventh', async () => {
  machine.commands.push([/^hold$/, (channel) => channel.resume()]);
  const client = await login();
  const held = await Promise.all(Array.from({ length: 10 }, () => exec(client, 'hold')));
  await expect(exec(client, 'hold')).rejects.toMatchObject({ reason: 2 });
  expect(await askIncus(await forward(client, socketPath))).toBe(200);
  const closed = once(held[0]!, 'close');
  held[0]!.resume().close();
  await closed;
  expect((await finish(await exec(client, 'nothere'))).code).toBe(127);
});

test('refuses a key that is not authorised, and one whose signature is not its own', async () => {
  await expect(login(newKey().private)).rejects.toMatchObject({
    level: 'client-authentication',
  });
  machine.policy.refuseKey = true;
  await expect(login()).rejects.toMatchObject({ level: 'client-authentication' });
});

test('shows the host key that it publishes', async () => {
  const client = new ssh2.Client();
  clients.push(client);
  client.on('error', () => undefined);
  client.on('connect', () => client.setNoDelay(true));
  client.connect({
    host: '127.0.0.1',
    port: machine.port,
    username: 'cijob',
    privateKey: machine.privateKey,
    hostVerifier: (key: Buffer) => `ssh-ed25519 ${key.toString('base64')}` === machine.hostKey,
  });
  await once(client, 'ready');
});

test('resolves paths as OpenSSH does: links followed, a missing last part allowed, other failures "No such file"', async () => {
  incus.host.directory('/nix/store/abc-deps');
  incus.host.symlink('/var/lib/cijob/deps', '../../../nix/store/abc-deps');
  incus.host.symlink('/loop', '/loop');
  incus.host.file('/etc/hosts', 10);
  const client = await login();
  const realpath = (path: string) =>
    sftp<string>(client, (wrapper, answer) => wrapper.realpath(path, answer)).catch(
      (error: unknown) => (error as { code: number }).code,
    );
  const asked: [path: string, real: string | number][] = [
    ['/var/lib/cijob/deps', '/nix/store/abc-deps'],
    ['/var/lib/cijob/../cijob/deps/', '/nix/store/abc-deps'],
    ['/etc/missing', '/etc/missing'],
    ['/etc/missing/deeper', 2],
    ['/etc/hosts/x', 2],
    ['/loop', 2],
  ];
  for (const [path, real] of asked) expect(await realpath(path), path).toBe(real);
  const stat = (path: string) => sftp<ssh2.Stats>(client, (wrapper, answer) => wrapper.stat(path, answer));
  expect((await stat('/var/lib/cijob/deps')).isDirectory()).toBe(true);
  expect((await stat(socketPath)).isSocket()).toBe(true);
  await expect(stat('/etc/missing')).rejects.toMatchObject({ code: 2 });
  machine.policy.noSftp = true;
  await expect(stat('/etc')).rejects.toThrow();
});

test('a cut takes everything with it, and Incus sees the streams go', async () => {
  const client = await login();
  const stream = await forward(client, socketPath);
  stream.on('error', () => undefined);
  expect(incus.connections).toBe(1);
  const gone = once(client, 'close');
  machine.cut();
  await gone;
  await expect.poll(() => incus.connections).toBe(0);
  await expect.poll(() => machine.connections).toBe(0);
});
