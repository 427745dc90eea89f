import { join, relative } from 'node:path/posix';
import { isInside } from '../api/text.ts';
import type { Wanted } from '../incus/commands.ts';
import type { Link } from './link.ts';
import { resolveSource, type Source } from './sources.ts';

type Mount = Wanted['mounts'][number];
type Refused = Extract<Source, { refused: string }>;

/** Where the source of each mount leads, by the source as it is written; or why one of the mounts cannot be. */
export async function resolveMounts(
  link: Pick<Link, 'resolve'>,
  mounts: readonly Mount[],
  allowedSources: readonly string[],
  host: string,
): Promise<{ sources: Readonly<Record<string, string>> } | Refused> {
  const names = [...new Set(mounts.map(({ source }) => source))];
  const found = await Promise.all(names.map((source) => resolveSource(link, source, allowedSources, host)));
  const sources: Record<string, string> = {};
  for (const [index, source] of found.entries()) {
    if ('refused' in source) return source;
    sources[names[index] ?? ''] = source.path;
  }
  const points = await Promise.all(mounts.map((mount) => refusalOfPoint(link, mount, mounts, sources, host)));
  return points.find((refused) => refused !== undefined) ?? { sources };
}

/**
 * Why a mount that lies in another one has no place there. That one is read-only, so the directory must be in it already;
 * and LXC follows no link to a mount point.
 *
 * What is there instead is not told: of a link that leads out of the source, it would say whether anything is there.
 */
async function refusalOfPoint(
  link: Pick<Link, 'resolve'>,
  { path, source }: Mount,
  mounts: readonly Mount[],
  sources: Readonly<Record<string, string>>,
  host: string,
): Promise<Refused | undefined> {
  const [outer] = mounts
    .filter((other) => other.path !== path && isInside(path, other.path))
    .sort((a, b) => b.path.length - a.path.length);
  if (!outer) return undefined;
  const below = relative(outer.path, path);
  const point = join(sources[outer.source] ?? outer.source, below);
  const found = await link.resolve(point);
  if (found?.directory === true && found.path === point) return undefined;
  return {
    refused: 'MountPointNotFound',
    message:
      `${source} cannot be mounted on ${path}: that lies in the mount on ${outer.path}, which is read-only, ` +
      `and ${outer.source} on host ${host} has no directory ${below}, or only behind a link`,
  };
}
