import type { IncusHostSpec } from '../api/incushost.ts';
import { mountRoots } from '../api/mounts.ts';
import { isInside } from '../api/text.ts';
import type { Command } from '../incus/commands.ts';
import type { CommandOutcome } from '../incus/outcome.ts';

/**
 * What an IncusHost lets jobs use, beside its directories: images and profiles, by names or beginnings of names that end
 * in `*`; and paths in the guest to mount on, beside those that every host allows.
 */
export type Grants = Pick<IncusHostSpec, 'allowedImages' | 'allowedProfiles' | 'allowedMountPaths'>;

/**
 * Why a job may not have its image, one of its profiles or one of its mounts on a host; undefined when it may. It is the name as the job
 * writes it that counts, so a job that names the fingerprint of an image whose alias is allowed is refused.
 */
export function refusalByGrants(
  { image, profiles, mountPaths }: Extract<Command, { verb: 'resolve' }>,
  { allowedImages, allowedProfiles, allowedMountPaths }: Grants,
  host: string,
): Extract<CommandOutcome, { kind: 'refused' }> | undefined {
  if (!allowedImages.some((allowed) => matches(image, allowed))) {
    return refused('ImageNotAllowed', `image ${image}`, host, 'allowedImages', allowedImages);
  }
  const profile = profiles.find((name) => !allowedProfiles.some((allowed) => matches(name, allowed)));
  if (profile !== undefined) {
    return refused('ProfileNotAllowed', `profile ${profile}`, host, 'allowedProfiles', allowedProfiles);
  }
  const roots = [...mountRoots, ...allowedMountPaths];
  const path = mountPaths.find((wanted) => !roots.some((root) => isInside(wanted, root)));
  if (path === undefined) return undefined;
  return refused('MountPathNotAllowed', `mount path ${path}`, host, 'allowedMountPaths', roots);
}

/** Whether a name is the one allowed, or begins as that does before its `*`. */
export function matches(name: string, allowed: string): boolean {
  return allowed.endsWith('*') ? name.startsWith(allowed.slice(0, -1)) : name === allowed;
}

function refused(reason: string, what: string, host: string, field: string, allowed: readonly string[]) {
  const list = allowed.length === 0 ? 'nothing' : allowed.join(', ');
  return {
    kind: 'refused',
    reason,
    message: `${what} is not among what host ${host} allows (${field}): ${list}`.slice(0, 1024),
  } as const;
}
