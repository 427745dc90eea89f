import { describe, expect, it } from 'vitest';
import { isInside, resolveSource } from '../../../controller/hosts/sources.ts';

/** What there is on the host, by path: where it leads, and whether that is a directory. */
const host: Record<string, { path: string; directory: boolean }> = {
  '/var/lib/cijob/a': { path: '/var/lib/cijob/a', directory: true },
  '/var/lib/cijob/deps': { path: '/nix/store/deps', directory: true },
  '/var/lib/cijob/way-out': { path: '/etc', directory: true },
  '/var/lib/cijob/file': { path: '/var/lib/cijob/file', directory: false },
  '/var/lib/cijob-evil': { path: '/var/lib/cijob-evil', directory: true },
};
const resolve = (source: string, ...allowed: string[]) =>
  resolveSource({ resolve: (path) => Promise.resolve(host[path]) }, source, allowed, 'build-1');

describe('the source of a mount', () => {
  it('is the directory that it leads to', async () => {
    const allowed = ['/var/lib/cijob', '/nix/store'];
    expect(await resolve('/var/lib/cijob/a', ...allowed)).toEqual(host['/var/lib/cijob/a']);
    expect(await resolve('/var/lib/cijob/deps', ...allowed)).toMatchObject({ path: '/nix/store/deps' });
  });

  it.each([
    ['that is not there', '/var/lib/cijob/none', 'SourceNotFound', 'build-1'],
    ['that is a file', '/var/lib/cijob/file', 'SourceNotADirectory', '/var/lib/cijob/file'],
    ['that leads out of what is allowed', '/var/lib/cijob/way-out', 'SourceNotAllowed', 'which is /etc'],
    [
      'whose path only begins like an allowed one',
      '/var/lib/cijob-evil',
      'SourceNotAllowed',
      '/var/lib/cijob',
    ],
  ])('is refused %s', async (_what, source, refused, named) => {
    const found = await resolve(source, '/var/lib/cijob');
    expect(found).toMatchObject({ refused });
    expect('refused' in found && found.message).toContain(named);
  });

  it('is refused, wherever it lies, where nothing is allowed', async () => {
    const found = await resolve('/var/lib/cijob/a');
    expect(found).toMatchObject({ refused: 'SourceNotAllowed' });
    expect('refused' in found && found.message).toContain('nothing');
  });
});

describe('a path', () => {
  it.each([
    ['/a', '/a', true],
    ['/a/b', '/a', true],
    ['/ab', '/a', false],
    ['/', '/a', false],
    ['/a/b', '/a/', true],
    ['/a', '/', true],
  ])('%s inside of %s: %s', (path, directory, expected) => {
    expect(isInside(path, directory)).toBe(expected);
  });
});
