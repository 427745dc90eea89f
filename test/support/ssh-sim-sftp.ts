import ssh2, { type Attributes, type SFTPWrapper } from 'ssh2';
import type { HostEntry, HostFiles } from './incus-sim/host-files.ts';

const { STATUS_CODE } = ssh2.utils.sftp;
const types: Record<HostEntry['kind'], number> = {
  directory: 0o040755,
  file: 0o100644,
  socket: 0o140660,
  symlink: 0o120777,
};

/**
 * Serves REALPATH, STAT and LSTAT of a simulated host; all else is "unsupported". As OpenSSH does (measured): a path
 * whose last part is missing still has a real path, every other failure is "No such file".
 */
export function serveSftp(sftp: SFTPWrapper, host: HostFiles): void {
  sftp.on('REALPATH', (id, path) => {
    const asked = path.startsWith('/') ? path : `/root/${path}`;
    const real = realOrNew(asked, host);
    if (real === undefined) sftp.status(id, STATUS_CODE.NO_SUCH_FILE, 'No such file');
    else sftp.name(id, [{ filename: real, longname: real, attrs: attributes({ kind: 'directory' }) }]);
  });
  sftp.on('STAT', (id, path) => {
    const real = host.realpath(path);
    if (typeof real === 'string') sftp.status(id, STATUS_CODE.NO_SUCH_FILE, 'No such file');
    else sftp.attrs(id, attributes(real.entry));
  });
  sftp.on('LSTAT', (id, path) => {
    const entry = host.lstat(path);
    if (entry) sftp.attrs(id, attributes(entry));
    else sftp.status(id, STATUS_CODE.NO_SUCH_FILE, 'No such file');
  });
}

function realOrNew(path: string, host: HostFiles): string | undefined {
  const real = host.realpath(path);
  if (typeof real !== 'string') return real.path;
  const cut = path.lastIndexOf('/');
  const parent = host.realpath(path.slice(0, cut) || '/');
  if (typeof parent === 'string' || parent.entry.kind !== 'directory' || host.lstat(path)) return undefined;
  return `${parent.path === '/' ? '' : parent.path}/${path.slice(cut + 1)}`;
}

function attributes(entry: HostEntry): Attributes {
  const size = entry.kind === 'file' ? entry.size : 4096;
  return { mode: types[entry.kind], uid: 0, gid: 0, size, atime: 0, mtime: 0 };
}
