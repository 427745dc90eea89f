import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Mount } from '../../../controller/api/cijob.ts';
import { IncusHostSpec } from '../../../controller/api/incushost.ts';
import { wellKnownMountPaths } from '../../../controller/api/mounts.ts';
import { refusalByGrants, type Grants } from '../../../controller/hosts/grants.ts';

const spec = (part: Partial<Grants> = {}) =>
  IncusHostSpec.parse({
    connection: { local: {} },
    capacity: { instances: 1 },
    allowedNamespaces: { all: true },
    ...part,
  });
const ask = (image: string, profiles: string[], part?: Partial<Grants>, mountPaths: string[] = []) => {
  const mounts = mountPaths.map((path) => ({ source: '/a', path }));
  return refusalByGrants({ namespace: 'ci', image, profiles, mounts }, spec(part), {}, 'build-1')?.reason;
};

test('unless it says otherwise, a host lets jobs use any image, and the profile default', () => {
  expect(ask('anything/at-all', ['default'])).toBeUndefined();
  expect(ask('anything/at-all', [])).toBeUndefined();
  expect(ask('anything/at-all', ['default', 'host-network'])).toBe('ProfileNotAllowed');
});

test.each([
  ['pikaci/dev', ['pikaci/dev'], true],
  ['pikaci/dev2', ['pikaci/dev'], false],
  ['pikaci/dev', ['other', 'pikaci/*'], true],
  ['pikaci', ['pikaci/*'], false],
  ['0123abcd', ['pikaci/*'], false],
  ['0123abcd', ['0123abcd'], true],
  ['pikaci/dev', [], false],
])('image %s where %j is allowed: %s', (image, allowedImages, allowed) => {
  expect(ask(image, [], { allowedImages })).toBe(allowed ? undefined : 'ImageNotAllowed');
});

test.each([
  [['default'], ['*'], true],
  [['ci-small', 'default'], ['ci-*', 'default'], true],
  [['ci-small', 'admin'], ['ci-*', 'default'], false],
  [['default'], [], false],
])('profiles %j where %j is allowed: %s', (profiles, allowedProfiles, allowed) => {
  expect(ask('image', profiles, { allowedProfiles })).toBe(allowed ? undefined : 'ProfileNotAllowed');
});

test('the answer says what the host allows', () => {
  const refusal = refusalByGrants(
    { namespace: 'ci', image: 'x', profiles: [], mounts: [] },
    spec({ allowedImages: ['a', 'b*'] }),
    {},
    'build-1',
  );
  expect(refusal?.message).toBe('image x is not among what host build-1 allows (allowedImages): a, b*');
});

test('a namespace needs the labels that the host asks for', () => {
  const wanted = { namespace: 'ci', image: 'x', profiles: [], mounts: [] };
  const picky = spec({ allowedNamespaces: { matchLabels: { team: 'a' } } });
  expect(refusalByGrants(wanted, picky, { team: 'a', more: 'b' }, 'build-1')).toBeUndefined();
  expect(refusalByGrants(wanted, picky, { team: 'b' }, 'build-1')).toEqual({
    kind: 'refused',
    reason: 'NamespaceNotAllowed',
    message: 'spec.allowedNamespaces of host build-1 does not admit namespace ci',
  });
});

const askForPath = (path: string, allowedMountPaths: string[] = []) =>
  ask('image', [], { allowedMountPaths }, [path]);

test('a mount may be where every host lets it: the places of known mounts among them', () => {
  for (const path of [
    ...Object.values(wellKnownMountPaths),
    ...['/workspace', '/staged/a', '/mnt', '/opt/tool', '/srv/x', '/data/fixtures'],
  ])
    expect(askForPath(path), path).toBeUndefined();
});

test.each([
  ...[
    '/nix',
    '/nix/store/abc-systemd',
    '/home/pikaci',
    '/home',
    '/tmp',
    '/var/spool/cron',
    '/media',
    '/selinux',
  ],
  ...['/data2', '/DATA', '/Data/x', '/optional', '/mnt2/x', '/workspaces'],
])('a mount on %s is refused unless the host allows it', (path) => {
  expect(askForPath(path)).toBe('MountPathNotAllowed');
  expect(askForPath(path, ['/elsewhere', path])).toBeUndefined();
  expect(askForPath(`${path}/below`, [path])).toBeUndefined();
  expect(askForPath(path, [`${path}/below`])).toBe('MountPathNotAllowed');
});

test('one mount where none may be is enough, and the answer says which, and what the host allows', () => {
  const mounts = ['/data/a', '/nix/store', '/tmp'].map((path) => ({ source: '/a', path }));
  const refusal = refusalByGrants(
    { namespace: 'ci', image: 'x', profiles: [], mounts },
    spec({ allowedMountPaths: ['/cache'] }),
    {},
    'build-1',
  );
  expect(refusal).toMatchObject({
    reason: 'MountPathNotAllowed',
    message:
      'mount path /nix/store is not among what host build-1 allows (allowedMountPaths): /workspace, /staged, /mnt, /opt, /srv, /data, /cache',
  });
});

/** Paths of any form, many of them near those that count. */
const element = fc.oneof(
  fc.constantFrom(
    'etc',
    'usr',
    'bin',
    'root',
    'lib64',
    'data',
    'mnt',
    'opt',
    'nix',
    'var',
    'run',
    'workspace',
  ),
  fc.constantFrom('..', '.', '', 'DATA', 'data ', 'lib', 'pikaci-incus-run', 'systemd', 'snapshot', '\u0430'),
  fc.string({ minLength: 1, maxLength: 4 }),
);
const anyPath = fc.array(element, { minLength: 1, maxLength: 5 }).map((elements) => `/${elements.join('/')}`);

test('whatever a job writes, it ends up below one of the roots, element by element, on a host that allows no more', () => {
  const roots = ['workspace', 'staged', 'mnt', 'opt', 'srv', 'data'];
  let allowed = 0;
  fc.assert(
    fc.property(anyPath, (path) => {
      const read = Mount.safeParse({ name: 'm', source: '/a', path });
      if (!read.success || askForPath(read.data.path ?? '') !== undefined) return;
      allowed += 1;
      const [first = '', ...others] = path.split('/').slice(1);
      expect(roots).toContain(first);
      for (const other of others) expect(['', '.', '..']).not.toContain(other);
    }),
    { numRuns: 2000 },
  );
  expect(allowed).toBeGreaterThan(20);
});
