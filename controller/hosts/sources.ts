import { dirname } from 'node:path';
import { isInside } from '../api/text.ts';
import type { Link } from './link.ts';

/** A mount's source as it is on the host, or why it may not be used. */
export type Source =
  | { path: string }
  | {
      refused: 'SourceNotFound' | 'SourceNotADirectory' | 'SourceNotAllowed' | 'MountPointNotFound';
      message: string;
    };

/**
 * Follows a mount's source to the directory it stands for and checks that both lie where the IncusHost allows.
 *
 * Whoever may write CiJobs reads the answer, so it tells nothing of the host outside of what is allowed: a source that
 * lies outside as it is written is not looked at, and of one that leads outside only that is told, not where to or what
 * is there.
 *
 * This gives the early, clear answer. The guard against a link that changes afterwards is Incus's own: a restricted
 * project checks `restricted.devices.disk.paths` when it mounts (docs/security.md).
 */
export async function resolveSource(
  link: Pick<Link, 'resolve'>,
  source: string,
  allowedSources: readonly string[],
  host: string,
): Promise<Source> {
  const isAllowed = (path: string) => allowedSources.some((allowed) => isInside(path, allowed));
  const unlooked = refusalOfSource(source, source, allowedSources, host);
  if (unlooked) return unlooked;
  const found = await link.resolve(source);
  const reached = found ?? (await nearest(link, source, isAllowed));
  const refusal = refusalOfSource(source, reached?.path ?? source, allowedSources, host);
  if (refusal) return refusal;
  if (!found) {
    return {
      refused: 'SourceNotFound',
      message: `${source} does not exist on host ${host}, or the user of its connection may not see it`,
    };
  }
  const leads = found.path === source ? source : `${source}, which is ${found.path},`;
  if (!found.directory) return { refused: 'SourceNotADirectory', message: `${leads} is not a directory` };
  return found;
}

/** Why a source may not be mounted, as it is written or for where it leads; undefined when it may. Looks nowhere. */
export function refusalOfSource(
  source: string,
  leadsTo: string,
  allowedSources: readonly string[],
  host: string,
): Extract<Source, { refused: string }> | undefined {
  const lies = [source, leadsTo].map((path) => allowedSources.some((allowed) => isInside(path, allowed)));
  if (lies.every((inside) => inside)) return undefined;
  const what = lies[0] ? 'is or lies behind a link that leads' : 'lies';
  const allowed = allowedSources.length === 0 ? 'nothing' : allowedSources.join(', ');
  return {
    refused: 'SourceNotAllowed',
    message: `${source} ${what} outside what host ${host} allows to mount: ${allowed}`,
  };
}

/** Where the nearest parent of a path that leads anywhere leads: what is missing behind a link is told to nobody. */
async function nearest(link: Pick<Link, 'resolve'>, source: string, isAllowed: (path: string) => boolean) {
  for (let path = dirname(source); isAllowed(path); path = dirname(path)) {
    const found = await link.resolve(path);
    if (found) return found;
  }
  return undefined;
}
