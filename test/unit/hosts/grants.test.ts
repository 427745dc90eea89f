import { expect, test } from 'vitest';
import { IncusHostSpec } from '../../../controller/api/incushost.ts';
import { refusalByGrants, type Grants } from '../../../controller/hosts/grants.ts';

const spec = (part: Partial<Grants> = {}) =>
  IncusHostSpec.parse({
    connection: { local: {} },
    capacity: { instances: 1 },
    allowedNamespaces: { all: true },
    ...part,
  });
const ask = (image: string, profiles: string[], part?: Partial<Grants>) => {
  const command = {
    verb: 'resolve',
    instance: 'i',
    type: 'container',
    sources: [],
    image,
    profiles,
  } as const;
  return refusalByGrants(command, spec(part), 'build-1')?.reason;
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
  const command = { verb: 'resolve', instance: 'i', type: 'container', sources: [], profiles: [] } as const;
  const refusal = refusalByGrants(
    { ...command, image: 'x' },
    spec({ allowedImages: ['a', 'b*'] }),
    'build-1',
  );
  expect(refusal?.message).toBe('image x is not among what host build-1 allows (allowedImages): a, b*');
});
