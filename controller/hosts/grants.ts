import type { IncusHostSpec } from '../api/incushost.ts';
import type { Command } from '../incus/commands.ts';
import type { CommandOutcome } from '../incus/outcome.ts';

/** What an IncusHost lets jobs use of it, beside directories: names, or beginnings of names that end in `*`. */
export type Grants = Pick<IncusHostSpec, 'allowedImages' | 'allowedProfiles'>;

/**
 * Why a job may not have its image or one of its profiles on a host; undefined when it may. It is the name as the job
 * writes it that counts, so a job that names the fingerprint of an image whose alias is allowed is refused.
 */
export function refusalByGrants(
  { image, profiles }: Extract<Command, { verb: 'resolve' }>,
  { allowedImages, allowedProfiles }: Grants,
  host: string,
): Extract<CommandOutcome, { kind: 'refused' }> | undefined {
  if (!allowedImages.some((allowed) => matches(image, allowed))) {
    return refused('ImageNotAllowed', `image ${image}`, host, 'allowedImages', allowedImages);
  }
  const profile = profiles.find((name) => !allowedProfiles.some((allowed) => matches(name, allowed)));
  if (profile === undefined) return undefined;
  return refused('ProfileNotAllowed', `profile ${profile}`, host, 'allowedProfiles', allowedProfiles);
}

function matches(name: string, allowed: string): boolean {
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
