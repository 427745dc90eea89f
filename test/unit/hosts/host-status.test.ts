import { describe, expect, it } from 'vitest';
import { findCondition } from '../../../controller/api/conditions.ts';
import { IncusHost, type IncusHostStatus } from '../../../controller/api/incushost.ts';
import { apiVersion } from '../../../controller/api/meta.ts';
import type { HostFacts } from '../../../controller/hosts/host-facts.ts';
import type { HostState } from '../../../controller/hosts/host.ts';
import { hostStatus } from '../../../controller/hosts/host-status.ts';

const now = Date.parse('2026-01-01T12:00:00Z');

function host(spec: object = {}, status?: IncusHostStatus): IncusHost {
  return IncusHost.parse({
    apiVersion,
    kind: 'IncusHost',
    metadata: { name: 'build-1', uid: 'u', generation: 3, creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: {
      connection: { local: {} },
      project: 'cijob',
      capacity: { instances: 4 },
      allowedNamespaces: { all: true },
      allowedSources: ['/var/lib/cijob', '/nix/store'],
      ...spec,
    },
    ...(status ? { status } : {}),
  });
}
const up = (project: Record<string, string> = {}): HostState => ({
  kind: 'up',
  since: now,
  version: '6.0.4',
  instanceTypes: ['Container'],
  project,
});
const down = (reason: string): HostState => ({
  kind: 'down',
  since: now,
  reason,
  message: `it is ${reason}`,
});

const told = (state: HostState, resource = host(), at = now) => hostStatus(resource, state, 1, at, at);
/** Each condition as `Type=Status Reason`. */
const conditions = (state: HostState, resource = host()) =>
  told(state, resource).conditions?.map(({ type, status, reason }) => `${type}=${status} ${reason}`);

describe('the status of a host', () => {
  it('that is connected says so, and what Incus is', () => {
    expect(conditions(up())).toEqual([
      'Reachable=True Connected',
      'IncusResponding=True Answers',
      'Restricted=False ProjectNotRestricted',
      'Schedulable=True Schedulable',
      'Ready=True Connected',
    ]);
    expect(told(up())).toMatchObject({
      observedGeneration: 3,
      incus: { version: '6.0.4', instanceTypes: ['Container'], project: 'cijob' },
      instances: { used: 1, capacity: 4 },
      observedAt: '2026-01-01T12:00:00.000Z',
    });
  });

  it('that was never reached knows nothing yet, and is on its way', () => {
    expect(conditions(down('Connecting'))).toEqual([
      'Reachable=Unknown Connecting',
      'IncusResponding=Unknown Connecting',
      'Schedulable=False NotConnected',
      'Ready=False Connecting',
      'Reconciling=True Connecting',
    ]);
    expect(hostStatus(host(), down('Connecting'), 0, 0, now).observedAt).toBeUndefined();
  });

  it.each([
    'IncusForbidden',
    'IncusNotResponding',
    'SocketUnavailable',
    'ForwardingForbidden',
    'SudoRefused',
  ])('whose machine answers and whose Incus does not (%s) blames Incus', (reason) => {
    expect(conditions(down(reason))).toEqual(
      expect.arrayContaining([
        'Reachable=True Connected',
        `IncusResponding=False ${reason}`,
        `Ready=False ${reason}`,
        `Stalled=True ${reason}`,
      ]),
    );
  });

  it.each(['Unreachable', 'HostKeyMismatch', 'AuthenticationFailed'])(
    'whose machine does not let us in (%s) says nothing of Incus',
    (reason) => {
      expect(conditions(down(reason))).toEqual(
        expect.arrayContaining([`Reachable=False ${reason}`, `IncusResponding=Unknown ${reason}`]),
      );
    },
  );

  it('that takes no new jobs is not schedulable, and ready all the same', () => {
    expect(conditions(up(), host({ unschedulable: true }))).toEqual(
      expect.arrayContaining(['Schedulable=False Unschedulable', 'Ready=True Connected']),
    );
  });

  it('on which creations fail is closed if they fail for all, and open if they fail for some', () => {
    const schedulable = (all: boolean) =>
      findCondition(
        hostStatus(host(), up(), 0, now, now, { all, message: 'no space left on device' }).conditions,
        'Schedulable',
      );
    expect(schedulable(true)).toMatchObject({
      status: 'False',
      reason: 'CreationFailing',
      message: 'no space left on device',
    });
    expect(schedulable(false)).toMatchObject({
      status: 'True',
      reason: 'CreationFailingForSome',
      message: 'the host takes jobs; no space left on device',
    });
  });

  it('keeps what was last known of Incus while it is out of sight, and forgets its complaints when it is back', () => {
    const before = told(up());
    const lost = told(down('Unreachable'), host({}, before));
    expect(lost.incus).toEqual(before.incus);
    expect(findCondition(lost.conditions, 'Restricted')).toEqual(
      findCondition(before.conditions, 'Restricted'),
    );
    expect(conditions(up(), host({}, lost))).toEqual(conditions(up()));
  });

  it('is the same when nothing has happened, however much later', () => {
    const before = told(up());
    const later = told(up(), host({}, before), now + 60_000);
    expect(later.conditions).toEqual(before.conditions);
  });
});

describe('what the host is', () => {
  const facts: HostFacts = {
    poolBytes: {},
    machine: { untold: '' },
    pools: { told: [{ name: 'default', driver: 'dir' }] },
    profiles: { told: [{ name: 'default', devices: {} }] },
    networks: { told: [] },
    acls: { untold: 'Forbidden' },
  };

  it('is in its conditions once it was asked, and stays there while it is out of sight', () => {
    const asked: HostState = { ...(up() as Extract<HostState, { kind: 'up' }>), facts };
    const last = ['RootDiskEnforced=False DriverDir', 'Isolated=True NoNetwork'];
    expect(conditions(asked)).toEqual(expect.arrayContaining(last));
    const lost = conditions(down('Unreachable'), host({}, told(asked)));
    expect(lost).toEqual(expect.arrayContaining(last));
  });

  it('shows how much jobs may take, and what is not known is left out', () => {
    const asked = (part: Partial<HostFacts>): HostState => ({
      ...(up() as Extract<HostState, { kind: 'up' }>),
      facts: { ...facts, ...part },
    });
    const GiB = 2 ** 30;
    const machine = { told: { cpu: { total: 8 }, memory: { total: 64 * GiB } } };
    expect(
      told(asked({ machine, poolBytes: { default: 500 * GiB } }), host({ capacity: { instances: 4 } }))
        .capacity,
    ).toEqual({
      cpu: 8,
      memory: '58982MiB',
      rootDisk: '512000MiB',
    });
    expect(told(asked({}), host({ capacity: { instances: 4 } })).capacity).toEqual({});
    expect(told(up(), host({ capacity: { instances: 4 } })).capacity).toBeUndefined();
  });

  it('is looked for in what the IncusHost names now', () => {
    const asked: HostState = { ...(up() as Extract<HostState, { kind: 'up' }>), facts };
    expect(conditions(asked, host({ storagePool: 'fast' }))).toContain('RootDiskEnforced=False PoolNotFound');
  });
});

describe('whether Incus itself guards the mounts', () => {
  const restricted = (config: Record<string, string>, resource = host()) => {
    const { status, reason, message } = findCondition(told(up(config), resource).conditions, 'Restricted')!;
    return { answer: `${status} ${reason}`, message };
  };
  const guarded = { restricted: 'true', 'restricted.devices.disk': 'allow' };
  const paths = (value: string) => ({ ...guarded, 'restricted.devices.disk.paths': value });

  it.each([
    ['a project that restricts nothing', {}, 'False ProjectNotRestricted'],
    [
      'one that is said not to',
      { ...paths('/nix/store'), restricted: 'false' },
      'False ProjectNotRestricted',
    ],
    ['one that lets no directory in', { restricted: 'true' }, 'True Restricted'],
    ['one that lets any directory in', guarded, 'False AnySourceAllowed'],
    ['one whose list of directories is empty', paths(','), 'False AnySourceAllowed'],
    ['the same directories', paths('/var/lib/cijob,/nix/store'), 'True Restricted'],
    ['fewer of them, and deeper ones', paths('/nix/store/a'), 'True Restricted'],
    ['one more', paths('/nix/store,/etc'), 'False WiderThanAllowedSources'],
    ['one that only begins alike', paths('/nix/store2'), 'False WiderThanAllowedSources'],
    ['a parent', paths('/nix'), 'False WiderThanAllowedSources'],
  ])('by %s', (_what, config, expected) => {
    expect(restricted(config).answer).toBe(expected);
  });

  it('names the directories that are too many, and no others', () => {
    const { message } = restricted(paths('/nix/store,/etc,/srv'));
    expect(message).toContain('from /etc, /srv, which');
  });
});
