import { beforeEach, describe, expect, test } from 'vitest';
import { resolveMounts } from '../../../controller/hosts/mount-sources.ts';
import { HostFiles } from '../../support/incus-sim/host-files.ts';

let files: HostFiles;
beforeEach(() => {
  files = new HostFiles();
  files.directory('/src/outer/sub/deep');
  files.directory('/src/inner');
  files.file('/src/outer/file');
  files.directory('/home/alice/private');
});

const link = {
  resolve: (path: string) => {
    const real = files.realpath(path);
    return Promise.resolve(
      typeof real === 'string' ? undefined : { path: real.path, directory: real.entry.kind === 'directory' },
    );
  },
};
/** Mounts by their paths in the guest. */
const resolve = (mounts: Record<string, string>) =>
  resolveMounts(
    link,
    Object.entries(mounts).map(([path, source]) => ({ path, source })),
    ['/src'],
    'build-1',
  );
const refusal = async (mounts: Record<string, string>) => {
  const resolved = await resolve(mounts);
  return 'refused' in resolved ? resolved.refused : undefined;
};

test('mounts beside each other lead to their sources', async () => {
  files.symlink('/src/result', '/src/inner');
  expect(await resolve({ '/data/a': '/src/outer', '/data/ab': '/src/result' })).toEqual({
    sources: { '/src/outer': '/src/outer', '/src/result': '/src/inner' },
  });
});

test('a source that cannot be mounted is refused, whatever else is asked for', async () => {
  expect(await refusal({ '/data/a': '/src/outer', '/data/a/none': '/src/none' })).toBe('SourceNotFound');
});

describe('a mount inside another mount, which is read-only', () => {
  test('needs a directory in the source of that one', async () => {
    expect(await refusal({ '/data': '/src/outer', '/data/sub': '/src/inner' })).toBeUndefined();
    expect(await refusal({ '/data/sub/deep': '/src/inner', '/data': '/src/outer' })).toBeUndefined();
    expect(await resolve({ '/data/none': '/src/inner', '/data': '/src/outer' })).toEqual({
      refused: 'MountPointNotFound',
      message:
        '/src/inner cannot be mounted on /data/none: that lies in the mount on /data, which is read-only, ' +
        'and /src/outer on host build-1 has no directory none, or only behind a link',
    });
    expect(await refusal({ '/data': '/src/outer', '/data/file': '/src/inner' })).toBe('MountPointNotFound');
  });

  test('needs it where the link of the outer source leads, in the innermost of the mounts around it', async () => {
    files.symlink('/src/result', '/src/outer');
    expect(await refusal({ '/data': '/src/result', '/data/sub': '/src/inner' })).toBeUndefined();
    const around = { '/data': '/src/outer', '/data/sub': '/src/inner' };
    expect(await refusal({ ...around, '/data/sub/deep': '/src/outer' })).toBe('MountPointNotFound');
    files.directory('/src/inner/deep');
    expect(await refusal({ ...around, '/data/sub/deep': '/src/outer' })).toBeUndefined();
  });

  test('may not need a link, and the answer is the same whatever a link leads to', async () => {
    const answers = new Set<unknown>();
    for (const target of ['/src/inner', '/home/alice/private', '/home/alice/none', '/home']) {
      files.symlink('/src/outer/link', target);
      answers.add(JSON.stringify(await resolve({ '/data': '/src/outer', '/data/link': '/src/inner' })));
    }
    files.remove('/src/outer/link');
    answers.add(JSON.stringify(await resolve({ '/data': '/src/outer', '/data/link': '/src/inner' })));
    expect([...answers]).toEqual([expect.stringContaining('MountPointNotFound')]);
  });
});
