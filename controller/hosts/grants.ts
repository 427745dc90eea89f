import type { IncusHostSpec } from '../api/incushost.ts';
import { mountRoots } from '../api/mounts.ts';
import { isInside } from '../api/text.ts';
import type { Wanted } from '../incus/commands.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import { matches as hasLabels } from './admission.ts';

type Refusal = Extract<CommandOutcome, { kind: 'refused' }>;

/**
 * What an IncusHost lets jobs use, and of which namespaces: images and profiles, by names or beginnings of names that end
 * in `*`; its directories; and paths in the guest to mount on, beside those that every host allows.
 */
export type Grants = Pick<
  IncusHostSpec,
  'allowedNamespaces' | 'allowedImages' | 'allowedProfiles' | 'allowedSources' | 'allowedMountPaths'
>;

/**
 * Why a job may not have its image, one of its profiles or one of its mounts on a host, or may not use the host at all;
 * undefined when it may. It is the name as the job writes it that counts, so a job that names the fingerprint of an image
 * whose alias is allowed is refused.
 *
 * @param namespaceLabels labels of the job's namespace.
 */
export function refusalByGrants(
  { namespace, image, profiles, mounts }: Wanted,
  { allowedNamespaces, allowedImages, allowedProfiles, allowedMountPaths }: Grants,
  namespaceLabels: Readonly<Record<string, string>>,
  host: string,
): Refusal | undefined {
  if (!hasLabels(allowedNamespaces.matchLabels ?? {}, namespaceLabels)) {
    return {
      kind: 'refused',
      reason: 'NamespaceNotAllowed',
      message: `spec.allowedNamespaces of host ${host} does not admit namespace ${namespace}`,
    };
  }
  if (!allowedImages.some((allowed) => matches(image, allowed))) {
    return refused('ImageNotAllowed', `image ${image}`, host, 'allowedImages', allowedImages);
  }
  const profile = profiles.find((name) => !allowedProfiles.some((allowed) => matches(name, allowed)));
  if (profile !== undefined) {
    return refused('ProfileNotAllowed', `profile ${profile}`, host, 'allowedProfiles', allowedProfiles);
  }
  const roots = [...mountRoots, ...allowedMountPaths];
  const path = mounts.map((mount) => mount.path).find((one) => !roots.some((root) => isInside(one, root)));
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
