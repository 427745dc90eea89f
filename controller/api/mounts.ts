import { atAdmission } from './stored.ts';
import { absolutePath, absolutePathRules, isInside } from './text.ts';

/** Guest paths of the mounts that every image knows (docs/guest-contract.md). */
export const wellKnownMountPaths: Readonly<Record<string, string>> = {
  snapshot: '/workspace/snapshot',
  'workspace-deps': '/staged/linux-rust/workspace-deps',
  'workspace-build': '/staged/linux-rust/workspace-build',
};

/**
 * Where every host lets a job mount: on or below these guest paths. No program of the guest's root looks there unless
 * somebody sends it there, so what a job mounts there cannot make the job root.
 */
export const mountRoots: readonly string[] = ['/workspace', '/staged', '/mnt', '/opt', '/srv', '/data'];

/**
 * Where nothing is ever mounted, whatever a host allows: the places of the kernel, the programs and the configuration of
 * the guest's root, and what the runner's promises rest on (docs/guest-contract.md): its program below /run, its state,
 * the place of its result. `/var/run` is `/run` by another name.
 */
export const reservedGuestPaths: readonly string[] = [
  ...['/artifacts', '/cargo-home', '/cargo-target'],
  ...['/proc', '/sys', '/dev', '/run', '/var/run', '/var/lib/pikaci-incus-run'],
  ...['/boot', '/etc', '/root', '/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32'],
];

/** The directories that hold a reserved path: a mount there would hide it. */
const parentsOfReserved = [...new Set(reservedGuestPaths.flatMap(parentsOf))];

const reservedMessage = `must not be, be below or hold ${reservedGuestPaths.join(', ')}`;

/** A guest path that a mount may have somewhere, if its host allows it: nothing reserved is at, above or below it. */
export const mountPath = absolutePath
  .refine(
    (path) =>
      !parentsOfReserved.includes(path) && !reservedGuestPaths.some((reserved) => isInside(path, reserved)),
    { error: reservedMessage, ...atAdmission },
  )
  .meta({
    'x-kubernetes-validations': [
      ...absolutePathRules,
      {
        rule: `!self.matches('^(${reservedGuestPaths.join('|')})(/.*)?$') && !(self in [${parentsOfReserved
          .map((path) => `'${path}'`)
          .join(', ')}])`,
        message: reservedMessage,
      },
    ],
  });

/** Where a mount appears in the guest: its own path, or the well-known one of its name. */
export function guestPath(mount: { name: string; path?: string | undefined }): string | undefined {
  if (mount.path !== undefined) return mount.path;
  return Object.hasOwn(wellKnownMountPaths, mount.name) ? wellKnownMountPaths[mount.name] : undefined;
}

/** The parents of a path, without `/` itself, which no absolute path of ours is. */
function parentsOf(path: string): string[] {
  const elements = path.split('/').slice(1, -1);
  return elements.map((_, index) => `/${elements.slice(0, index + 1).join('/')}`);
}
