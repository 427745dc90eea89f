import type { HostFiles } from './host-files.ts';
import type { SimInstance } from './instance.ts';

const rootfs = '/usr/lib/x86_64-linux-gnu/lxc/rootfs';

/**
 * What LXC logs of a container whose mounts cannot be set up, as it was seen; undefined where they can. The directory to
 * mount on is made in the image, but not in another mount, which is read-only; and no link is followed to it.
 */
export function startErrors(instance: SimInstance, host: HostFiles): string | undefined {
  if (instance.type !== 'container') return undefined;
  const mounts = Object.values(instance.devices)
    .map(({ path = '', source }) => ({ path, source }))
    .filter((mount): mount is { path: string; source: string } => mount.source !== undefined)
    .sort((a, b) => a.path.length - b.path.length);
  for (const { path } of mounts) {
    const outer = mounts.findLast((other) => path.startsWith(`${other.path}/`));
    const why = outer ? inMount(path, outer, host) : inImage(path, instance.imageLinks);
    if (why !== undefined) return logOf(instance.name, why);
  }
  return undefined;
}

function inImage(path: string, links: readonly string[]): string | undefined {
  const link = links.find((one) => path === one || path.startsWith(`${one}/`));
  return link === undefined ? undefined : throughLink(link, path);
}

function inMount(path: string, outer: { path: string; source: string }, host: HostFiles): string | undefined {
  const below = path.slice(outer.path.length + 1).split('/');
  for (const depth of below.keys()) {
    const at = below.slice(0, depth + 1).join('/');
    const entry = host.lstat(`${outer.source}/${at}`);
    if (entry?.kind === 'symlink') return throughLink(`${outer.path}/${at}`, path);
    if (!entry) {
      return `utils - ../src/lxc/utils.c:mkdir_p:236 - Read-only file system - Failed to create directory "${rootfs}${outer.path}/${at}"`;
    }
    if (entry.kind !== 'directory') {
      return `utils - ../src/lxc/utils.c:safe_mount:1220 - Not a directory - Failed to mount "/var/lib/incus/devices/x" onto "${rootfs}${path}"`;
    }
  }
  return undefined;
}

function throughLink(link: string, path: string): string {
  const name = link.split('/').at(-1) ?? '';
  // LXC makes the directory first, and follows the link for that, in the file system of the host.
  if (path !== link) {
    return `utils - ../src/lxc/utils.c:mkdir_p:236 - Permission denied - Failed to create directory "${rootfs}${path}"`;
  }
  return `utils - ../src/lxc/utils.c:open_without_symlink:1084 - Too many levels of symbolic links - ${name} in ${rootfs}${path} was a symbolic link!`;
}

/** The error itself, what follows from it, and lines that say nothing. */
function logOf(name: string, why: string): string {
  const lines: [level: string, what: string][] = [
    [
      'WARN ',
      'cgfsng - ../src/lxc/cgroups/cgfsng.c:fchowmodat:1619 - No such file or directory - Failed to fchownat',
    ],
    ['ERROR', why],
    ['ERROR', 'conf - ../src/lxc/conf.c:lxc_setup:4419 - Failed to setup mount entries'],
    ['ERROR', `start - ../src/lxc/start.c:do_start:1272 - Failed to setup container "${name}"`],
    [
      'ERROR',
      'sync - ../src/lxc/sync.c:sync_wait:34 - An error occurred in another process (expected sequence number 3)',
    ],
    ['ERROR', `start - ../src/lxc/start.c:__lxc_start:2107 - Failed to spawn container "${name}"`],
  ];
  const time = '20260101120000.001';
  const own = lines.map(([level, what]) => `lxc ${name} ${time} ${level}    ${what}`);
  const others = `lxc ${time} ERROR    af_unix - ../src/lxc/af_unix.c:lxc_abstract_unix_recv_fds_iov:218 - Connection reset by peer - Failed to receive response`;
  return [...own, others, ''].join('\n');
}
