import { describe, expect, test } from 'vitest';
import { isolation } from '../../../controller/hosts/isolation.ts';
import { Network, NetworkAcl, type Profile } from '../../../controller/incus/schemas.ts';

const filtered = {
  'security.mac_filtering': 'true',
  'security.ipv4_filtering': 'true',
  'security.ipv6_filtering': 'true',
};
const card = { type: 'nic', network: 'jobs0', 'security.port_isolation': 'true', ...filtered };
const root = { type: 'disk', path: '/', pool: 'default' };
const profile = (name: string, devices: Profile['devices']): Profile => ({ name, devices });
const bridge = (config: Record<string, string> = {}, more: object = {}) =>
  Network.parse({
    name: 'jobs0',
    type: 'bridge',
    managed: true,
    config: { 'ipv4.address': '10.77.0.1/24', 'ipv6.address': 'none', 'security.acls': 'jobs', ...config },
    ...more,
  });
const acl = (egress: object[], ingress: object[]) => NetworkAcl.parse({ name: 'jobs', egress, ingress });
const internet = {
  action: 'allow',
  destination:
    '1.0.0.0-9.255.255.255,11.0.0.0-100.63.255.255,100.128.0.0-126.255.255.255,128.0.0.0-169.253.255.255,169.255.0.0-172.15.255.255,172.32.0.0-191.255.255.255,192.0.1.0-192.167.255.255,192.169.0.0-223.255.255.255,2000::/3',
};
const privately = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16'];
const refuseEach = [...privately, 'fc00::/7', 'fe80::/10'].map((destination) => ({
  action: 'drop',
  destination,
}));

interface Host {
  allowedProfiles?: string[];
  profiles?: Profile[];
  network?: Network;
  egress?: object[];
  ingress?: object[];
}
function ask({
  allowedProfiles = ['default'],
  profiles,
  network = bridge(),
  egress = [internet],
  ingress = [],
}: Host) {
  return isolation(
    { allowedProfiles },
    {
      profiles: { told: profiles ?? [profile('default', { root, eth0: card })] },
      networks: { told: [network] },
      acls: { told: [acl(egress, ingress)] },
    },
  );
}
const answer = (host: Host) => {
  const { status, reason } = ask(host);
  return `${status} ${reason}`;
};
const withCard = (nic: Record<string, string>): Host => ({ profiles: [profile('default', { eth0: nic })] });

describe('the network cards of guests', () => {
  test('that there are none of isolate best', () => {
    expect(answer({ profiles: [profile('default', { root })] })).toBe('True NoNetwork');
  });

  test('that keep them from each other, from false addresses and from private networks isolate', () => {
    expect(answer({})).toBe('True Isolated');
  });

  test.each([
    ['security.port_isolation', 'PortIsolationMissing'],
    ['security.mac_filtering', 'FilteringMissing'],
    ['security.ipv4_filtering', 'FilteringMissing'],
    ['security.ipv6_filtering', 'FilteringMissing'],
  ])('without %s do not, and the message names it', (key, reason) => {
    for (const value of ['false', '']) {
      const { status, reason: told, message } = ask(withCard({ ...card, [key]: value }));
      expect({ status, told }).toEqual({ status: 'False', told: reason });
      expect(message).toContain(key);
      expect(message).toContain('eth0 of profile default');
    }
  });

  test.each(['macvlan', 'physical', 'sriov', 'ipvlan', 'routed', 'p2p'])(
    'of the kind %s do not',
    (nictype) => {
      expect(answer(withCard({ type: 'nic', nictype, parent: 'eth0' }))).toBe('False NotABridge');
    },
  );

  test('on a network of another type do not', () => {
    expect(answer({ network: bridge({}, { type: 'ovn' }) })).toBe('False NotABridge');
  });

  test('on a bridge that Incus does not manage have no ACL', () => {
    const parent = { ...card, nictype: 'bridged', parent: 'jobs0' };
    Reflect.deleteProperty(parent, 'network');
    expect(answer({ ...withCard(parent), network: bridge({}, { managed: false }) })).toBe(
      'False EgressNotRestricted',
    );
    expect(answer(withCard(parent))).toBe('True Isolated');
  });

  test('of every profile that jobs may use count, and of no other', () => {
    const open = { type: 'nic', network: 'jobs0' };
    const profiles = [profile('default', { eth0: card }), profile('ci-open', { eth0: open })];
    expect(answer({ profiles })).toBe('True Isolated');
    for (const allowed of ['ci-open', 'ci-*', '*']) {
      expect(answer({ profiles, allowedProfiles: ['default', allowed] })).toBe('False PortIsolationMissing');
    }
  });

  test('that are several say so, and what is wrong counts before what is not known', () => {
    const nic = { type: 'nic', network: 'jobs0' };
    const profiles = [profile('default', { eth0: { ...card, network: 'gone' }, eth1: nic, eth2: nic })];
    expect(ask({ profiles })).toMatchObject({
      ...{ status: 'False', reason: 'PortIsolationMissing' },
      message: expect.stringContaining('; 2 more network cards have a fault') as string,
    });
  });
});

describe('what guests reach', () => {
  test.each<[string, Record<string, string>, object[], string]>([
    ['no ACL', { 'security.acls': '' }, [], 'everything'],
    ['an ACL that is not there', { 'security.acls': 'other' }, [internet], 'everything'],
    ['a rule that allows all', {}, [{ action: 'allow' }], '10.0.0.0/8'],
    [
      'all of it in two rules',
      {},
      [internet, { action: 'allow', destination: '10.0.0.0/9,10.128.0.0/9' }],
      '10.0.0.0/8',
    ],
    [
      'a rule that lets metadata and more through',
      {},
      [{ action: 'allow', destination: '169.254.0.0/16' }],
      '169.254.0.0/16',
    ],
    ['a private network of IPv6', {}, [internet, { action: 'allow', destination: 'fc00::/7' }], 'fc00::/7'],
    [
      'all but what is refused, and one is not',
      { 'security.acls.default.egress.action': 'allow' },
      refuseEach.slice(1),
      '10.0.0.0/8',
    ],
    [
      'refusals that are switched off',
      { 'security.acls.default.egress.action': 'allow' },
      refuseEach.map((rule) => ({ ...rule, state: 'disabled' })),
      '10.0.0.0/8',
    ],
    [
      'refusals of one protocol only',
      { 'security.acls.default.egress.action': 'allow' },
      refuseEach.map((rule) => ({ ...rule, protocol: 'tcp' })),
      '10.0.0.0/8',
    ],
    ["the host's own public address", { 'ipv4.address': '203.0.113.1/24' }, [internet], 'its own addresses'],
    [
      'an address of its public subnet that is not the gateway',
      { 'ipv4.address': '203.0.113.1/24' },
      [{ action: 'reject', destination: '203.0.113.1' }, internet],
      'its own addresses',
    ],
    [
      'a part of its subnet',
      {},
      [
        { action: 'reject', destination: '10.77.0.1' },
        { action: 'allow', destination: '10.77.0.64/26' },
      ],
      'its own addresses',
    ],
    [
      'an address of its public subnet of IPv6 that is not the gateway',
      { 'ipv6.address': '2001:db8:1::1/64' },
      [{ action: 'reject', destination: '2001:db8:1::1' }, internet],
      'its own addresses',
    ],
  ])('by %s', (_, config, egress, open) => {
    const { status, reason, message } = ask({ network: bridge(config), egress });
    expect({ status, reason }).toEqual({ status: 'False', reason: 'EgressNotRestricted' });
    expect(message).toContain(`network jobs0 lets guests reach ${open}`);
  });

  test('is not their public subnet where all of it is refused', () => {
    const network = bridge({ 'ipv4.address': '203.0.113.1/24' });
    const subnet = { action: 'reject', destination: '203.0.113.1/24' };
    expect(answer({ network, egress: [subnet, internet] })).toBe('True Isolated');
  });

  test('is of the host what was known of it, and the message says so', () => {
    expect(ask({}).message).toContain('the last run of isolate-network.sh');
  });

  test('is nothing by an ACL without rules', () => {
    expect(answer({ egress: [] })).toBe('True Isolated');
  });

  test('is restricted as well by refusing what is private and allowing the rest', () => {
    const config = { 'security.acls.default.egress.action': 'allow' };
    expect(answer({ network: bridge(config), egress: refuseEach })).toBe('True Isolated');
    const one = {
      action: 'reject',
      destination: refuseEach.map(({ destination }) => destination).join(', '),
    };
    expect(answer({ network: bridge(config), egress: [one] })).toBe('True Isolated');
    expect(answer({ egress: [...refuseEach, { action: 'allow' }] })).toBe('True Isolated');
  });

  test('by name, of what is private, stands in the message', () => {
    const egress = [internet, { action: 'allow', destination: '10.1.2.0/24,fd00::5', protocol: 'tcp' }];
    expect(ask({ egress })).toMatchObject({
      ...{ status: 'True', reason: 'Isolated' },
      message: expect.stringMatching(/, but for 10\.1\.2\.0\/24, fd00::5$/) as string,
    });
  });
});

describe('who reaches guests', () => {
  const allow = { action: 'allow', source: '192.0.2.0/24' };

  test.each<[string, Record<string, string>, object[], string]>([
    ['anybody, by default', { 'security.acls.default.ingress.action': 'allow' }, [], 'anybody'],
    ['anybody, by a rule', {}, [{ action: 'allow', protocol: 'tcp' }], 'anybody'],
    ['whom a rule names', {}, [{ action: 'drop', source: '@internal' }, allow], '192.0.2.0/24'],
    ['whom a rule without state names', {}, [{ ...allow, action: 'allow-stateless' }], '192.0.2.0/24'],
  ])('is %s', (_, config, ingress, comer) => {
    const { status, reason, message } = ask({ network: bridge(config), ingress });
    expect({ status, reason }).toEqual({ status: 'False', reason: 'IngressNotRestricted' });
    expect(message).toContain(`network jobs0 lets ${comer} reach guests`);
  });

  test('is nobody by rules that refuse or are switched off', () => {
    const ingress = [{ action: 'reject' }, { ...allow, state: 'disabled' }];
    const network = bridge({ 'security.acls.default.ingress.action': 'drop' });
    expect(answer({ network, ingress })).toBe('True Isolated');
  });
});

describe('what a host does not show', () => {
  const told = { told: [] };
  const untold = { untold: 'Forbidden' };
  const known = { profiles: { told: [profile('default', { eth0: card })] }, networks: told, acls: told };

  test.each([
    [{ ...known, profiles: untold }, 'Unknown ProfileNotReadable'],
    [{ ...known, networks: untold }, 'Unknown NetworkNotReadable'],
    [{ ...known, acls: untold }, 'Unknown NetworkNotReadable'],
    [known, 'Unknown NetworkNotReadable'],
    [{ profiles: told, networks: untold, acls: untold }, 'True NoNetwork'],
  ])('is not known, case %#', (facts, expected) => {
    const { status, reason } = isolation({ allowedProfiles: ['default'] }, facts);
    expect(`${status} ${reason}`).toBe(expected);
  });
});
