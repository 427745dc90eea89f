import type { Link } from './link.ts';

/** A mount's source as it is on the host, or why it may not be used. */
export type Source =
  | { path: string }
  | { refused: 'SourceNotFound' | 'SourceNotADirectory' | 'SourceNotAllowed'; message: string };

/**
 * Follows a mount's source to the directory it stands for and checks that it lies where the IncusHost allows.
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
  const found = await link.resolve(source);
  if (!found) return { refused: 'SourceNotFound', message: `${source} does not exist on host ${host}` };
  const leads = found.path === source ? source : `${source}, which is ${found.path},`;
  if (!found.directory) return { refused: 'SourceNotADirectory', message: `${leads} is not a directory` };
  if (!allowedSources.some((allowed) => isInside(found.path, allowed))) {
    const allowed = allowedSources.length === 0 ? 'nothing' : allowedSources.join(', ');
    return {
      refused: 'SourceNotAllowed',
      message: `${leads} lies outside what host ${host} allows to mount: ${allowed}`,
    };
  }
  return found;
}

/** Whether a path is a directory or lies below it. Both are absolute and without `..`. */
export function isInside(path: string, directory: string): boolean {
  const base = directory.endsWith('/') ? directory : `${directory}/`;
  return path === directory || path.startsWith(base);
}
