import { expect } from 'vitest';
import type { Scenario } from './scenario.ts';
import { envelope, withInstance, run, sh, lifecycle } from './steps.ts';

/** Reading files of guests. */
export const files: readonly Scenario[] = [
  {
    name: 'files: HEAD tells what a path is, GET reads it, a link is shown and not followed',
    async run(incus) {
      await withInstance(incus, async (name) => {
        await run(
          incus,
          name,
          sh(
            [
              'mkdir -p /artifacts/d',
              'echo 0123456789 > /artifacts/f; touch -d "2024-02-29 12:30:45" /artifacts/f',
              ': > /artifacts/empty',
              'ln -s f /artifacts/link',
              'ln -s nowhere /artifacts/dangling',
              'ln -s /artifacts /elsewhere',
              'mkfifo /artifacts/fifo',
            ].join('; '),
          ),
        );
        const reader = await incus.events('type=lifecycle&project=default');
        const url = (path: string) => `/1.0/instances/${name}/files?path=${encodeURIComponent(path)}`;
        const heads: [path: string, status: number, type?: string, length?: string][] = [
          ['/artifacts/f', 200, 'file', '11'],
          ['/elsewhere/f', 200, 'file', '11'],
          ['/artifacts/empty', 200, 'file', '0'],
          ['/artifacts/fifo', 200, 'file', '0'],
          ['/artifacts/d', 200, 'directory'],
          ['/artifacts/link', 200, 'symlink'],
          ['/artifacts/dangling', 200, 'symlink'],
          ['/artifacts/missing', 404],
        ];
        for (const [path, status, type, length] of heads) {
          const head = await incus.request('HEAD', url(path));
          expect(head.status, path).toBe(status);
          expect(head.headers['x-incus-type'], path).toBe(type);
          if (length !== undefined) expect(head.headers['content-length'], path).toBe(length);
        }
        const modified = (await incus.request('HEAD', url('/artifacts/f'))).headers['x-incus-modified'];
        expect(modified).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC$/);
        const file = await incus.request('GET', url('/artifacts/f'));
        expect(file).toMatchObject({ status: 200, text: '0123456789\n' });
        expect(file.headers).toMatchObject({
          'x-incus-type': 'file',
          'x-incus-uid': '0',
          'x-incus-gid': '0',
          'x-incus-mode': '0644',
          'content-type': 'application/octet-stream',
          'accept-ranges': 'bytes',
        });
        const ranges: [range: string, status: number, text: string, said: string][] = [
          ['bytes=0-3', 206, '0123', 'bytes 0-3/11'],
          ['bytes=8-', 206, '89\n', 'bytes 8-10/11'],
          ['bytes=-3', 206, '89\n', 'bytes 8-10/11'],
          ['bytes=-99', 206, '0123456789\n', 'bytes 0-10/11'],
          ['bytes=0-99', 206, '0123456789\n', 'bytes 0-10/11'],
          ['bytes=11-', 416, 'invalid range: failed to overlap\n', 'bytes */11'],
        ];
        for (const [range, status, text, said] of ranges) {
          const part = await incus.request('GET', url('/artifacts/f'), { headers: { range } });
          expect(part.status, range).toBe(status);
          expect(part.text, range).toBe(text);
          expect(part.headers['content-range'], range).toBe(said);
        }
        const link = await incus.request('GET', url('/artifacts/link'));
        expect([link.headers['x-incus-type'], link.text]).toEqual(['symlink', '/artifacts/f']);
        const directory = envelope(await incus.request('GET', url('/artifacts/d')));
        expect(directory).toMatchObject({ type: 'sync', metadata: [] });
        const gone = await incus.request('GET', url('/artifacts/missing'));
        expect([gone.status, envelope(gone).error]).toEqual([404, 'Not Found']);
        const nothing = await incus.request('GET', `/1.0/instances/${name}/files`);
        expect([nothing.status, envelope(nothing).error]).toEqual([400, 'Missing path argument']);
        const event = await reader.until(lifecycle('instance-file-retrieved', name));
        expect(event.metadata).toMatchObject({ context: { path: '/artifacts/f' } });
        expect(event.metadata).not.toHaveProperty('requestor');
        reader.close();
      });
    },
  },
  {
    name: 'files: a directory is listed by the names in it, and what is no regular file shows as one without content',
    async run(incus) {
      await withInstance(incus, async (name) => {
        await run(
          incus,
          name,
          sh(
            [
              'mkdir -p /artifacts/d',
              'mkdir -p /artifacts/d/sub',
              'echo x > /artifacts/d/file',
              'echo x > /artifacts/d/.hidden',
              'mkfifo /artifacts/d/fifo',
              'ln -s /etc /artifacts/d/link',
            ].join('; '),
          ),
        );
        const url = (path: string) => `/1.0/instances/${name}/files?path=${encodeURIComponent(path)}`;
        const listed = await incus.request('GET', url('/artifacts/d'));
        expect([listed.status, listed.headers['x-incus-type']]).toEqual([200, 'directory']);
        const names = envelope(listed).metadata as string[];
        expect([...names].sort()).toEqual(['.hidden', 'fifo', 'file', 'link', 'sub']);
        const fifo = await incus.request('HEAD', url('/artifacts/d/fifo'));
        expect([fifo.headers['x-incus-type'], fifo.headers['content-length']]).toEqual(['file', '0']);
        const part = await incus.request('GET', url('/artifacts/d/file'), {
          headers: { range: 'bytes=0-1' },
        });
        expect([part.status, part.headers['x-incus-type'], part.headers['content-length']]).toEqual([
          206,
          'file',
          '2',
        ]);
      });
    },
  },
  {
    name: 'files: POST makes one, or replaces it, with owner and mode; where there is no such directory, it is refused',
    async run(incus) {
      await withInstance(incus, async (name) => {
        const url = (path: string) => `/1.0/instances/${name}/files?path=${encodeURIComponent(path)}`;
        const headers = {
          'content-type': 'application/octet-stream',
          'x-incus-type': 'file',
          'x-incus-write': 'overwrite',
          'x-incus-uid': '0',
          'x-incus-gid': '0',
          'x-incus-mode': '0600',
        };
        for (const body of ['the first, and longer one', 'the second']) {
          const put = await incus.request('POST', url('/root/file'), { headers, body });
          expect(envelope(put)).toMatchObject({ type: 'sync', status_code: 200 });
          const file = await incus.request('GET', url('/root/file'));
          expect(file.text).toBe(JSON.stringify(body));
          expect(file.headers).toMatchObject({
            'x-incus-uid': '0',
            'x-incus-gid': '0',
            'x-incus-mode': '0600',
          });
        }
        const lost = await incus.request('POST', url('/no-such-directory/file'), { headers, body: '' });
        expect([lost.status, envelope(lost).error]).toEqual([404, 'Not Found']);
      });
    },
  },
  {
    name: 'a GET of a FIFO is never answered; the instance can still be stopped and deleted',
    async run(incus) {
      await withInstance(incus, async (name) => {
        await run(incus, name, ['mkfifo', '/artifacts/fifo']);
        const got = incus.request('GET', `/1.0/instances/${name}/files?path=/artifacts/fifo`, {
          abortAfter: 300,
        });
        await expect(got).rejects.toThrow();
        const other = await incus.request('GET', `/1.0/instances/${name}/files?path=/etc/passwd`);
        expect(other.status).toBe(200);
      });
    },
  },
];
