import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { IncusHost } from '../../controller/api/incushost.ts';
import { runOk } from '../support/command.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { addSource, startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually } from './support/cluster.ts';
import { hostManifests, keySecret, type HostInput } from './support/hosts.ts';

/*
 * What can be wrong with the way to a host, what its IncusHost then says, and that it comes back by itself when it is
 * put right. Faults of the manifest share the first of the bench's hosts, which runs no jobs.
 */

let bench: Bench;
let cluster: Cluster;
let dir: string;

/** One thing that is wrong, and how an operator puts it right. */
interface Fault {
  what: string;
  name: string;
  /** Whether the machine itself is reached. */
  reachable: boolean;
  reason: string;
  mentions: string;
  break: () => Promise<void>;
  /** Default: the IncusHost, and its Secret, as they should be. */
  repair?: () => Promise<void>;
}

/** Adds or changes an IncusHost, and its Secret. */
const put = (name: string, input: HostInput = {}) => cluster.putHost(name, bench.host, input);

/** Adds an IncusHost whose Secret holds another key. */
const withKey = async (name: string, key: string) => {
  const [, host] = await hostManifests(name, bench.host);
  await cluster.applyObjects(keySecret(name, key), host!);
};

const faults: Fault[] = [
  {
    what: 'another key than the one let in',
    ...{ name: 'key-refused', reachable: false, reason: 'KeyRefused', mentions: 'authorized_keys' },
    break: async () => withKey('key-refused', await anotherKey()),
  },
  {
    what: 'a Secret that holds no key',
    ...{ name: 'key-garbled', reachable: false, reason: 'KeyUnusable', mentions: 'cannot be read' },
    break: () => withKey('key-garbled', 'this is not a key\n'),
  },
  {
    what: 'a Secret that is not there',
    ...{ name: 'key-missing', reachable: false, reason: 'KeyUnusable', mentions: 'no-such-secret' },
    break: () =>
      put('key-missing', { ssh: { privateKeySecretRef: { name: 'no-such-secret', key: 'id_ed25519' } } }),
  },
  {
    what: 'another host key than the pinned one',
    ...{ name: 'host-key', reachable: false, reason: 'HostKeyMismatch', mentions: 'hostKeys' },
    break: async () => put('host-key', { ssh: { hostKeys: [(await publicHalf()).trim()] } }),
  },
  {
    what: 'a socket that is not there',
    ...{ name: 'socket', reachable: true, reason: 'SocketUnavailable', mentions: '/no/such/unix.socket' },
    break: () => put('socket', { ssh: { socketPath: '/no/such/unix.socket' } }),
  },
  {
    what: 'a sudo that refuses',
    ...{ name: 'sudo', reachable: true, reason: 'SudoRefused', mentions: 'sudo' },
    // The rule in sudoers is for one socket only.
    break: () => put('sudo', { via: 'Sudo', ssh: { socketPath: '/no/such/unix.socket' } }),
    repair: () => put('sudo', { via: 'Sudo' }),
  },
  {
    what: 'a project that is not there',
    ...{ name: 'project', reachable: true, reason: 'IncusNotFound', mentions: 'no-such-project' },
    break: () => put('project', { spec: { project: 'no-such-project' } }),
  },
  {
    what: 'an sshd that forbids forwarding',
    ...{ name: 'forwarding', reachable: true, reason: 'ForwardingForbidden', mentions: 'via: Sudo' },
    break: async () => {
      // New settings are for new connections.
      await bench.hosts[1]!.sshd.halt();
      await bench.hosts[1]!.sshd.reconfigure({ AllowStreamLocalForwarding: 'no' });
    },
    repair: () => bench.hosts[1]!.sshd.reconfigure({}),
  },
];

beforeAll(async () => {
  bench = await startBench({ controlPlane: true, hosts: 5 });
  dir = await makeTempDir('keys');
  await runOk('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', join(dir, 'key')]);
  const idle = { spec: { unschedulable: true } };
  cluster = await Cluster.start(bench, {
    hosts: {
      shared: idle,
      forwarding: idle,
      'by-socket': { via: 'Socket', labels: { via: 'Socket' } },
      'by-sudo': { via: 'Sudo', labels: { via: 'Sudo' } },
      halting: { labels: { via: 'halting' } },
    },
  });
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
  await clearAway(dir);
});

const anotherKey = () => readFile(join(dir, 'key'), 'utf8');
const publicHalf = () => readFile(join(dir, 'key.pub'), 'utf8');

const conditionsOf = ({ status }: IncusHost) =>
  Object.fromEntries((status?.conditions ?? []).map((condition) => [condition.type, condition]));

/** Waits until an IncusHost says that it cannot be used, for a reason. */
async function saysWhy(name: string, reason: string): Promise<IncusHost> {
  return eventually(
    () => cluster.host(name),
    (host) => conditionsOf(host)['Ready']?.reason === reason,
    `incushost ${name}: ${reason}`,
    30,
  );
}

describe.each(faults)('with $what', ({ name, reachable, reason, mentions, ...fault }) => {
  test.concurrent(
    `the host is not Ready, for the reason ${reason}, and is again once that is put right`,
    async () => {
      await fault.break();

      const conditions = conditionsOf(await saysWhy(name, reason));
      expect(conditions).toMatchObject({
        Reachable: { status: reachable ? 'True' : 'False' },
        IncusResponding: { status: reachable ? 'False' : 'Unknown' },
        Schedulable: { status: 'False' },
        Ready: { status: 'False', reason, message: expect.stringContaining(mentions) as string },
        Stalled: { status: 'True', reason },
      });

      await (fault.repair ?? (() => put(name)))();
      const ready = conditionsOf(await cluster.hostReady(name, 60));
      expect(ready).toMatchObject({ Reachable: { status: 'True' }, IncusResponding: { status: 'True' } });
      expect(Object.keys(ready)).not.toContain('Stalled');
    },
  );
});

/** Says how often it ran, and takes long enough for something to happen meanwhile. */
const counts = (seconds: number) =>
  `echo ran >> /artifacts/ran; sleep ${seconds}; cat /artifacts/ran; exit 7`;
const ranOnce = { exitCode: 7, attempt: 1, failure: { class: 'Test', excerpt: 'ran\n' } };

describe.each([
  { via: 'Socket', index: 2 },
  { via: 'Sudo', index: 3 },
] as const)('a connection through $via that is cut', ({ via, index }) => {
  const host = () => bench.hosts[index]!;
  const on = { hostSelector: { matchLabels: { via } } };

  test('in the middle of a job is made again, and the job ends as if nothing had been', async () => {
    const names = ['busybox', 'systemd'].map((guest) => `cut-${guest}-${via.toLowerCase()}`);
    await cluster.applyAll(
      Object.fromEntries(
        names.map((name) => [
          name,
          {
            ...on,
            command: counts(6),
            image: name.includes('busybox') ? 'pikaci/busybox' : 'pikaci/systemd',
          },
        ]),
      ),
    );
    for (const name of names) await cluster.until(name, 'RunnerStarted');
    expect(await host().sshd.cutConnections()).toBeGreaterThan(0);
    for (const name of names) expect((await cluster.finished(name)).status).toMatchObject(ranOnce);
    expect(await cluster.instances(host())).toEqual([]);
  });

  test('in the part that follows links is made again whole', async () => {
    const source = await addSource(host(), 'snapshot', { hello: 'hello' });
    expect(await host().sshd.killSftp()).toBe(1);
    const name = `mounts-${via.toLowerCase()}`;
    await cluster.apply(name, { ...on, command: 'test -e hello', mounts: [{ name: 'snapshot', source }] });
    expect((await cluster.finished(name)).status).toMatchObject({ phase: 'Succeeded', attempt: 1 });
  });

  test('and whose key was replaced meanwhile is made again with the new key', async () => {
    const { sshd } = host();
    await sshd.rotateClientKey();
    await cluster.applyObjects(keySecret(`by-${via.toLowerCase()}`, await sshd.privateKey()));
    expect(await sshd.cutConnections()).toBeGreaterThan(0);
    await cluster.apply(`rotated-${via.toLowerCase()}`, { ...on, command: 'true' });
    expect((await cluster.finished(`rotated-${via.toLowerCase()}`)).status?.phase).toBe('Succeeded');
  });
});

test('a job that ends while its host is away ends right when the host is back', async () => {
  const { sshd } = bench.hosts[4]!;
  await cluster.apply('away', { command: counts(3), hostSelector: { matchLabels: { via: 'halting' } } });
  await cluster.until('away', 'RunnerStarted');
  await sshd.halt();
  const conditions = conditionsOf(await saysWhy('halting', 'Unreachable'));
  expect(conditions).toMatchObject({
    Reachable: { status: 'False' },
    IncusResponding: { status: 'Unknown' },
  });
  const { incus, project } = bench.hosts[4]!;
  const name = (await cluster.job('away')).status?.instance?.name ?? '';
  await eventually(
    () => incus.readFile(project, name, '/artifacts/result.json'),
    (text) => text.includes('exit_code'),
    'the command has ended',
    30,
  );
  expect((await cluster.job('away')).status?.phase).toBe('Running');
  await sshd.restart();
  expect((await cluster.finished('away')).status).toMatchObject(ranOnce);
});
