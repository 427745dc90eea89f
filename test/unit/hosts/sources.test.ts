import { beforeEach, describe, expect, test } from 'vitest';
import { resolveSource } from '../../../controller/hosts/sources.ts';
import { HostFiles } from '../../support/incus-sim/host-files.ts';

const allowed = ['/var/lib/cijob', '/nix/store'];
let files: HostFiles;
/** Paths that the host was asked for. */
let asked: string[];

beforeEach(() => {
  files = new HostFiles();
  asked = [];
  files.directory('/var/lib/cijob/snapshot');
  files.file('/var/lib/cijob/file');
  files.directory('/nix/store/abc-build');
  files.directory('/home/alice/private');
  files.file('/home/alice/notes');
});

const link = {
  resolve: (path: string) => {
    asked.push(path);
    const real = files.realpath(path);
    const found =
      typeof real === 'string' ? undefined : { path: real.path, directory: real.entry.kind === 'directory' };
    return Promise.resolve(found);
  },
};
const resolve = (source: string, within: readonly string[] = allowed) =>
  resolveSource(link, source, within, 'build-1');
const refusal = async (source: string) => {
  const resolved = await resolve(source);
  return 'refused' in resolved ? [resolved.refused, resolved.message] : resolved.path;
};

describe('a source inside of what the host allows', () => {
  test('is the directory it leads to', async () => {
    files.symlink('/var/lib/cijob/result', '/nix/store/abc-build');
    expect(await resolve('/var/lib/cijob/snapshot')).toMatchObject({ path: '/var/lib/cijob/snapshot' });
    expect(await resolve('/var/lib/cijob')).toMatchObject({ path: '/var/lib/cijob' });
    expect(await resolve('/var/lib/cijob/result')).toMatchObject({ path: '/nix/store/abc-build' });
  });

  test('is told what is wrong with it: nothing is there, or no directory', async () => {
    files.symlink('/var/lib/cijob/link', 'file');
    expect(await refusal('/var/lib/cijob/none')).toEqual([
      'SourceNotFound',
      '/var/lib/cijob/none does not exist on host build-1, or the user of its connection may not see it',
    ]);
    expect(await refusal('/var/lib/cijob/link')).toEqual([
      'SourceNotADirectory',
      '/var/lib/cijob/link, which is /var/lib/cijob/file, is not a directory',
    ]);
  });
});

describe('a source outside of what the host allows', () => {
  test.each(['/home/alice/private', '/home/alice/notes', '/home/alice/none', '/var/lib/cijob-other'])(
    'is refused without a look at the host, and so the same whatever is there: %s',
    async (source) => {
      expect(await refusal(source)).toEqual([
        'SourceNotAllowed',
        `${source} lies outside what host build-1 allows to mount: /var/lib/cijob, /nix/store`,
      ]);
      expect(asked).toEqual([]);
    },
  );

  test('is refused where the host allows nothing', async () => {
    expect(await resolve('/nix/store', [])).toMatchObject({
      refused: 'SourceNotAllowed',
      message: '/nix/store lies outside what host build-1 allows to mount: nothing',
    });
  });
});

describe('a link that leads outside', () => {
  beforeEach(() => {
    files.symlink('/var/lib/cijob/out', '/home/alice');
  });

  test.each(['', '/private', '/notes', '/none', '/none/deeper', '/notes/below'])(
    'tells neither where to nor what is there, whatever that is: out%s',
    async (below) => {
      const source = `/var/lib/cijob/out${below}`;
      expect(await refusal(source)).toEqual([
        'SourceNotAllowed',
        `${source} is or lies behind a link that leads outside what host build-1 allows to mount: /var/lib/cijob, /nix/store`,
      ]);
    },
  );
});
