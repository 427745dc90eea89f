import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { guestPath } from '../../../controller/api/mounts.ts';
import {
  absolutePath,
  bytesOf,
  matchLabels,
  objectName,
  size,
  sizeOf,
  text,
} from '../../../controller/api/text.ts';

describe('a size', () => {
  test.each([
    ['512MiB', 512 * 1024 ** 2],
    ['4GiB', 4 * 1024 ** 3],
    ['1TiB', 1024 ** 4],
    ['500MB', 500e6],
    ['20GB', 20e9],
    ['2TB', 2e12],
  ])('%s has %d bytes', (value, bytes) => {
    expect(size.parse(value)).toBe(value);
    expect(bytesOf(value)).toBe(bytes);
  });

  test.each([
    '',
    '4',
    '4Gi',
    '4G',
    '0GiB',
    '04GiB',
    '-4GiB',
    '1.5GiB',
    '4 GiB',
    '4gib',
    '4GiB ',
    '9999999999MB',
    '1000000GiB',
    '1000TiB',
    '999999999TiB',
  ])('is not "%s"', (value) => expect(size.safeParse(value).success).toBe(false));

  test('that is accepted always has a number of bytes that is exact, and that Incus can count in 64 bits', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[1-9][0-9]{0,8}(MiB|GiB|TiB|MB|GB|TB)$/), (value) => {
        fc.pre(size.safeParse(value).success);
        expect(bytesOf(value)).toBeGreaterThan(0);
        expect(Number.isSafeInteger(bytesOf(value))).toBe(true);
      }),
    );
  });

  test.each(['999999999MiB', '999999GiB', '999TiB', '999TB'])('may be as large as %s', (value) => {
    expect(size.parse(value)).toBe(value);
  });

  test('is written from bytes in whole MiB', () => {
    expect([sizeOf(2 ** 30), sizeOf(2 ** 20 - 1)]).toEqual(['1024MiB', '0MiB']);
  });
});

describe('text', () => {
  test('is counted in characters, as the API server does, not in UTF-16 units', () => {
    expect(text(2).safeParse('😀😀').success).toBe(true);
    expect(text(2).safeParse('😀😀😀').success).toBe(false);
  });

  test('may hold anything but NUL', () => {
    const anything = fc.string({ unit: 'binary', maxLength: 100 });
    fc.assert(
      fc.property(anything, (value) => {
        expect(text(100).safeParse(value).success).toBe(!value.includes('\0'));
      }),
    );
    expect(text(100).safeParse('a\0b').success).toBe(false);
  });
});

describe('an absolute path', () => {
  test.each(['/a', '/nix/store', '/a/.hidden', '/a/..b', '/a/...', '/with space/é', '/a/b.c'])(
    'may be %s',
    (path) => {
      expect(absolutePath.safeParse(path).success).toBe(true);
    },
  );

  test.each([
    '',
    '/',
    '//',
    'a',
    './a',
    '/a/',
    '/a//b',
    '/..',
    '/a/..',
    '/a/../b',
    '/.',
    '/a/./b',
    '/a:b',
    '/a\n',
  ])('is not %j', (path) => expect(absolutePath.safeParse(path).success).toBe(false));
});

test('an object name is a DNS subdomain', () => {
  for (const name of ['a', 'a-b.c', '0']) expect(objectName.safeParse(name).success).toBe(true);
  for (const name of ['', 'A', 'a..b', 'a.-b', '-a', 'a-', 'a_b', 'a'.repeat(254)]) {
    expect(objectName.safeParse(name).success, name).toBe(false);
  }
});

test('labels have keys and values that an object can have', () => {
  for (const good of [{}, { arch: 'x86_64' }, { 'example.org/a_b.c': '' }]) {
    expect(matchLabels.safeParse(good).success).toBe(true);
  }
  for (const bad of [{ 'a b': 'c' }, { a: 'b c' }, { '': 'a' }, { '/a': 'b' }, { ['a'.repeat(64)]: 'b' }]) {
    expect(matchLabels.safeParse(bad).success, JSON.stringify(bad)).toBe(false);
  }
});

test('a mount appears at its own path, else at that of its name, else nowhere', () => {
  expect(guestPath({ name: 'snapshot' })).toBe('/workspace/snapshot');
  expect(guestPath({ name: 'snapshot', path: '/elsewhere' })).toBe('/elsewhere');
  expect(guestPath({ name: 'mine' })).toBeUndefined();
  expect(guestPath({ name: 'constructor' })).toBeUndefined();
});
