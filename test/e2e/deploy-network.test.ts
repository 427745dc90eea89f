import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askFacts } from '../../controller/hosts/host-facts.ts';
import { isolation } from '../../controller/hosts/isolation.ts';
import { IncusClient } from '../../controller/incus/client.ts';
import { HttpPipe } from '../../controller/incus/http.ts';
import { run, type CommandResult } from '../support/command.ts';
import { ensurePackages } from '../support/debian-packages.ts';
import { buildGuestImage } from '../support/guest-image.ts';
import { guestNetworkPackages, Incusd } from '../support/incusd.ts';
import { beyond, beyond6, ownAddresses, ownAddresses6, WiderNetwork } from '../support/wider-network.ts';

/*
 * deploy/host/isolate-network.sh on a real Incus, with real guests on a real bridge, that try to get where they should
 * not. Each guest is its own root: what it cannot do here, no job can.
 */

const deploy = join(import.meta.dirname, '../../deploy/host');
let wide: WiderNetwork;
let incus: Incusd;

beforeAll(async () => {
  await ensurePackages([...guestNetworkPackages, 'shellcheck'], { reason: 'to give guests a network' });
  wide = await WiderNetwork.start();
  incus = await Incusd.start(wide.host);
  await incus.importImage((await buildGuestImage('busybox')).tarball, 'pikaci/busybox');
  for (const project of ['open', 'jobs', 'other']) await incus.createRestrictedProject(project, ['/srv/x']);
});
afterAll(async () => {
  await incus.deleteInstances();
  for (const project of ['open', 'jobs', 'other']) await incus.deleteProject(project);
  const networks = (await incus.query('/1.0/networks?recursion=1')) as { name: string; managed: boolean }[];
  // Its servers of names and addresses are not incusd's children.
  for (const { name, managed } of networks) if (managed) await incus.incusOk(['network', 'delete', name]);
  await incus.stop();
  await wide[Symbol.asyncDispose]();
});

function isolate(...args: string[]): Promise<CommandResult> {
  return wide.run([join(deploy, 'isolate-network.sh'), '--project', 'jobs', ...args], { env: incus.env });
}

/** Starts guests of a project, one after the other, and gives each the address that the bridge has for it. */
async function launch(project: string, ...names: string[]): Promise<string[]> {
  const addresses = [];
  for (const name of names) {
    await incus.incusOk(['launch', 'pikaci/busybox', name, '--quiet', '--project', project]);
    const script =
      '#!/bin/sh\\n[ "$1" = bound ] || exit 0\\nip address add $ip/24 dev $interface\\nip route add default via $router\\n';
    const ask =
      `printf '${script}' >/tmp/bound; chmod +x /tmp/bound; ip link set eth0 up; ` +
      "udhcpc -i eth0 -n -q -t 10 -T 1 -s /tmp/bound >&2; ip -4 -o address show eth0 | awk '{ print $4 }'";
    const address = (await incus.execOk(project, name, ['sh', '-c', ask])).trim().replace('/24', '');
    expect(address, `the address of ${name}`).toMatch(/^10\./);
    addresses.push(address);
  }
  return addresses;
}

/** Of these addresses, those from which a guest has an answer. */
async function reached(
  project: string,
  guest: string,
  targets: readonly string[],
  how = '',
): Promise<string[]> {
  const each = targets.map((target) => `ping -c 2 -W 1 ${how} ${target} >/dev/null 2>&1 && echo ${target}`);
  const { stdout } = await incus.exec(project, guest, ['sh', '-c', each.join('\n')]);
  return stdout.split('\n').filter((line) => line !== '');
}

const inGuest = (project: string, guest: string, line: string) =>
  incus.exec(project, guest, ['sh', '-c', line]);

/** What the condition Isolated of a host would say of a project. */
async function condition(project: string, allowedProfiles = ['default']): Promise<string> {
  const pipe = new HttpPipe(() => Promise.resolve(connect(incus.socketPath)), { requests: 4, reads: 1 });
  try {
    const facts = await askFacts(new IncusClient(pipe, project));
    const { status, reason, message } = isolation({ allowedProfiles }, facts);
    return `${status} ${reason}: ${message}`;
  } finally {
    pipe.close();
  }
}

/** Everything that Incus knows of networks. */
async function state(): Promise<unknown[]> {
  const lists = ['networks', 'network-acls', 'profiles', 'projects'].map(
    (what) => `/1.0/${what}?recursion=1&project=${what === 'profiles' ? 'jobs' : 'default'}`,
  );
  const all = (await Promise.all(lists.map((path) => incus.query(path)))) as {
    used_by?: string[] | null;
  }[][];
  // In no order of their own.
  return all.map((list) => list.map((one) => ({ ...one, used_by: one.used_by?.toSorted() })));
}

const everywhere = [...Object.values(beyond), ...ownAddresses];

describe('guests on a bridge as Incus makes it', () => {
  let addresses: string[];
  beforeAll(async () => {
    await incus.incusOk(['network', 'create', 'open0', 'ipv6.address=none']);
    const card = ['default', 'eth0', 'nic', 'network=open0', '--project', 'open'];
    await incus.incusOk(['profile', 'device', 'add', ...card]);
    addresses = await launch('open', 'a', 'b');
  });

  test('reach each other, the host, private networks and metadata, under any address', async () => {
    const [own = '', neighbour = ''] = addresses;
    const targets = [neighbour, ...everywhere];
    expect(await reached('open', 'a', targets)).toEqual(targets);
    const other = own.replace(/\.\d+$/, '.250');
    await inGuest('open', 'a', `ip address add ${other}/24 dev eth0`);
    expect(await reached('open', 'a', [neighbour], `-I ${other}`)).toEqual([neighbour]);
  });

  test('are not isolated, and the condition says so', async () => {
    expect(await condition('open')).toContain('False PortIsolationMissing');
    expect(await condition('jobs')).toContain('True NoNetwork');
  });
});

describe('guests on a bridge that isolate-network.sh made', () => {
  let addresses: string[];
  beforeAll(async () => {
    const made = await isolate('--network', 'jobs0', '--allow-egress', beyond.privately);
    expect(made, made.stderr).toMatchObject({ code: 0, stdout: '' });
    addresses = await launch('jobs', 'a', 'b');
  });

  test('reach the internet and what is allowed by name, and nothing else of host and private networks', async () => {
    const { internet, privately } = beyond;
    const gateway = addresses[0]?.replace(/\.\d+$/, '.1') ?? '';
    expect(await reached('jobs', 'a', [gateway, ...everywhere])).toEqual([internet, privately]);
  });

  test('do not reach each other', async () => {
    const [a = '', b = ''] = addresses;
    expect(await reached('jobs', 'a', [b])).toEqual([]);
    expect(await reached('jobs', 'b', [a])).toEqual([]);
    // Nor by IPv6, which needs no server of addresses.
    const { stdout } = await inGuest('jobs', 'a', 'ping -6 -c 2 -W 1 ff02::1%eth0');
    expect(stdout).not.toContain('DUP');
  });

  test('ask the bridge for names and addresses as before', async () => {
    const gateway = addresses[0]?.replace(/\.\d+$/, '.1') ?? '';
    // It has no one to ask, and says so; a server that is out of reach says nothing.
    const { stdout, stderr } = await inGuest('jobs', 'a', `nslookup example.org ${gateway}`);
    expect(stdout + stderr).toMatch(/REFUSED|SERVFAIL|NXDOMAIN/);
  });

  test('get nowhere under the address of another, of the network or of the hardware', async () => {
    const { internet } = beyond;
    const [, b = ''] = addresses;
    for (const false_ of [b, b.replace(/\.\d+$/, '.250')]) {
      await inGuest('jobs', 'a', `ip address add ${false_}/24 dev eth0`);
      expect(await reached('jobs', 'a', [internet], `-I ${false_}`)).toEqual([]);
      await inGuest('jobs', 'a', `ip address del ${false_}/24 dev eth0`);
    }
    const gateway = addresses[0]?.replace(/\.\d+$/, '.1') ?? '';
    const own = (await inGuest('jobs', 'a', 'cat /sys/class/net/eth0/address')).stdout.trim();
    const address = (hardware: string) =>
      `ip link set eth0 down; ip link set eth0 address ${hardware}; ip link set eth0 up; ip route add default via ${gateway}`;
    await inGuest('jobs', 'a', address('02:11:22:33:44:55'));
    expect(await reached('jobs', 'a', [internet])).toEqual([]);
    await inGuest('jobs', 'a', address(own));
    expect(await reached('jobs', 'a', [internet])).toEqual([internet]);
  });

  test('are isolated, and the condition says so and names what is allowed', async () => {
    expect(await condition('jobs')).toMatch(/^True Isolated: .*, but for 10\.200\.0\.2$/);
  });

  test('are so after a second run, which changes nothing and says nothing', async () => {
    const before = await state();
    const again = await isolate('--network', 'jobs0', '--allow-egress', beyond.privately);
    expect(again).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(await state()).toEqual(before);
  });

  test('are so again after somebody has taken each part away', async () => {
    const device = ['profile', 'device', 'set', 'default', 'eth0', '--project', 'jobs'];
    for (const [args, reason] of [
      [[...device, 'security.port_isolation=false'], 'PortIsolationMissing'],
      [[...device, 'security.mac_filtering=false'], 'FilteringMissing'],
      [['network', 'set', 'jobs0', 'security.acls.default.egress.action=allow'], 'EgressNotRestricted'],
      [['network', 'set', 'jobs0', 'security.acls.default.ingress.action=allow'], 'IngressNotRestricted'],
      [['network', 'unset', 'jobs0', 'security.acls'], 'EgressNotRestricted'],
    ] as const) {
      await incus.incusOk(args);
      expect(await condition('jobs')).toContain(`False ${reason}`);
      const mended = await isolate('--network', 'jobs0', '--allow-egress', beyond.privately);
      expect(mended, mended.stderr).toMatchObject({ code: 0 });
      expect(await condition('jobs')).toContain('True Isolated');
    }
  });

  test('reach no more what is not allowed any more, at once', async () => {
    await launch('jobs', 'c');
    expect(await reached('jobs', 'c', [beyond.privately])).toEqual([beyond.privately]);
    expect(await isolate('--network', 'jobs0')).toMatchObject({ code: 0 });
    expect(await reached('jobs', 'c', [beyond.privately, beyond.internet])).toEqual([beyond.internet]);
  });
});

describe('guests on a bridge that was there before, with IPv6', () => {
  test('reach no more by that than by IPv4', async () => {
    const six = ['network', 'create', 'six0', 'ipv4.address=10.88.0.1/24', 'ipv6.address=fd88::1/64'];
    await incus.incusOk([...six, 'ipv6.nat=true']);
    const made = await isolate('--project', 'other', '--network', 'six0');
    expect(made, made.stderr).toMatchObject({ code: 0 });
    expect(await condition('other')).toContain('True Isolated');
    await launch('other', 'a', 'b');
    const [own = '', neighbour = ''] = await Promise.all(['a', 'b'].map(takeAddress6));
    const targets = [...Object.values(beyond6), ...ownAddresses6, 'fd88::1', neighbour];
    expect(await reached('other', 'a', targets)).toEqual([beyond6.internet]);
    // A neighbour's address is not to be had.
    await inGuest(
      'other',
      'a',
      `ip address del ${own}/64 dev eth0; ip address add fd88::77/64 dev eth0; sleep 3`,
    );
    expect(await reached('other', 'a', [beyond6.internet])).toEqual([]);
    await incus.deleteInstances('other');
    expect(await isolate('--project', 'other', '--network', 'six0', '--undo')).toMatchObject({ code: 0 });
    // It was not made here, so it stays.
    expect(await incus.incusOk(['network', 'get', 'six0', 'ipv6.address'])).toBe('fd88::1/64\n');
  });

  test('reach none of its addresses, where these are public', async () => {
    await incus.incusOk(['network', 'create', 'pub0', 'ipv4.address=198.51.100.1/24', 'ipv6.address=none']);
    const made = await isolate('--project', 'other', '--network', 'pub0');
    expect(made, made.stderr).toMatchObject({ code: 0 });
    expect(await condition('other')).toContain('True Isolated');
    expect(await isolate('--project', 'other', '--network', 'pub0', '--undo')).toMatchObject({ code: 0 });
  });

  /** Gives a guest the address that Incus expects of its hardware, and waits until no other can have it. */
  async function takeAddress6(guest: string): Promise<string> {
    const { stdout } = await inGuest('other', guest, 'cat /sys/class/net/eth0/address');
    const [first = 0, ...more] = stdout
      .trim()
      .split(':')
      .map((byte) => Number.parseInt(byte, 16));
    const bytes = [first ^ 2, ...more.slice(0, 2), 0xff, 0xfe, ...more.slice(2)];
    const words = [0, 2, 4, 6].map((at) => (((bytes[at] ?? 0) << 8) + (bytes[at + 1] ?? 0)).toString(16));
    const address = `fd88::${words.join(':')}`;
    await inGuest('other', guest, `ip address add ${address}/64 dev eth0; sleep 3`);
    return address;
  }
});

describe('the script', () => {
  test('does not bind others: a network that they use is refused, and left alone', async () => {
    const before = await state();
    const { code, stderr } = await isolate('--network', 'open0');
    expect(code).toBe(1);
    expect(stderr).toMatch(/network open0 is used by others, .*\/1\.0\/profiles\/default\?project=open/);
    expect(await state()).toEqual(before);
  });

  beforeAll(() => incus.incusOk(['network', 'create', 'mac0', '--type=macvlan', `parent=${wide.cable}`]));

  test.each([
    [['--network', 'far0'], 'interface "far0" already exists'],
    [['--network', 'mac0'], 'mac0 is no bridge that Incus manages'],
    [['--network', 'a name'], 'is no name for a bridge'],
    [['--network', 'longer-than-a-bridge'], 'is no name for a bridge'],
    [
      ['--network', 'jobs1', '--allow-egress', '10.0.0.0/8\n- action: allow'],
      'is no address, network or range',
    ],
    [['--network', 'jobs1', '--allow-egress', 'example.org'], 'is no address, network or range'],
    [['--network', 'jobs1', '--project', 'nobodys'], 'there is no Incus project nobodys'],
    [[], '--network is missing'],
    [['--wrong', 'x'], 'unknown option --wrong'],
  ])('tells of the mistake %j, and changes nothing', async (args, told) => {
    const before = await state();
    const { code, stdout, stderr } = await isolate(...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(told);
    expect(await state()).toEqual(before);
  });

  test('moves the guests of a project from a network of another to one of their own', async () => {
    const other = (...args: string[]) => isolate('--project', 'other', ...args);
    const card = ['default', 'eth0', 'nic', 'nictype=bridged', 'parent=open0', '--project', 'other'];
    await incus.incusOk(['project', 'set', 'other', 'restricted.devices.nic=allow']);
    await incus.incusOk(['profile', 'device', 'add', ...card]);
    expect(await condition('other')).toContain('False PortIsolationMissing');
    const moved = await other('--network', 'other0');
    expect(moved, moved.stderr).toMatchObject({ code: 0 });
    expect(await condition('other')).toContain('True Isolated');
    expect(await other('--network', 'other0', '--undo')).toMatchObject({ code: 0 });
  });

  test('takes everything away again, and leaves no rule behind', async () => {
    await incus.deleteInstances('jobs');
    expect(await wide.rules()).toContain('jobs0');
    for (const time of ['once', 'twice']) {
      const undone = await isolate('--network', 'jobs0', '--undo');
      expect(undone, `${time}: ${undone.stderr}`).toMatchObject({ code: 0, stdout: '' });
      expect(JSON.stringify(await state())).not.toContain('jobs0');
      expect(await wide.rules()).not.toContain('jobs0');
      expect(await condition('jobs')).toContain('True NoNetwork');
    }
  });

  test('has nothing for shellcheck to say', async () => {
    expect(await run('shellcheck', [join(deploy, 'isolate-network.sh')])).toMatchObject({
      code: 0,
      stdout: '',
    });
  });
});

describe('prepare-incus-host.sh --network', () => {
  const user = `cijob-${randomBytes(4).toString('hex')}`;
  afterAll(async () => {
    await run('rm', ['-f', `/etc/sudoers.d/cijob-host-${user}`]);
    await run('userdel', ['--force', '--remove', user]);
    await incus.deleteProject('prepared');
  });

  test('isolates the guests of the project that it makes', async () => {
    const { stdout: key } = await run('sh', [
      '-c',
      'cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null || true',
    ]);
    const publicKey = key || `ssh-ed25519 ${Buffer.alloc(51, 1).toString('base64')} host`;
    const hostKey = join(incus.dir, 'host_key.pub');
    await run('tee', [hostKey], { input: publicKey });
    const flags = {
      ...{
        name: 'prepared',
        'public-key': publicKey.trim(),
        address: '192.0.2.1',
        user,
        project: 'prepared',
      },
      ...{ source: incus.dir, socket: incus.socketPath, 'host-key': hostKey },
      ...{ network: 'prep0', 'allow-egress': beyond.alsoPrivately },
    };
    const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
    for (const time of ['first', 'second']) {
      const prepared = await wide.run([join(deploy, 'prepare-incus-host.sh'), ...args], { env: incus.env });
      expect(prepared, `${time}: ${prepared.stderr}`).toMatchObject({ code: 0 });
      expect(await condition('prepared')).toMatch(/^True Isolated: .*, but for 192\.168\.200\.2$/);
    }
    await launch('prepared', 'a');
    expect(await reached('prepared', 'a', everywhere)).toEqual([beyond.internet, beyond.alsoPrivately]);
  });
});
