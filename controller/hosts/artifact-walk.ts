import type { IncusClient } from '../incus/client.ts';
import { artifactsPath, logPath, resultPath } from '../incus/commands.ts';
import { IncusError } from '../incus/errors.ts';
import { isFitName } from './artifact-names.ts';
import type { ArtifactReport } from './artifact-report.ts';
import { compileGlobs, plainGlob, type GlobPosition } from './globs.ts';

/** What a walk reads a guest by. */
export type GuestReader = Pick<IncusClient, 'stat' | 'list'>;

/** A file that matches, by its path below `/artifacts`, and how it was when the walk came by. */
export interface FoundFile {
  path: string;
  size: number;
  /** When it was last changed, in milliseconds since the epoch, as far as Incus says. */
  modifiedAt?: number | undefined;
}

/** Directories within each other. */
export const maxDepth = 16;
/** Names looked at in one directory. */
export const maxNames = 10_000;
/** Steps of the globs in all: about a second of work. Only globs made to cost that much come near it. */
const maxWork = 50_000_000;

/** The runner's own files, of which the log and the status tell already. */
const ownFiles = [resultPath, logPath].map((path) => path.slice(artifactsPath.length + 1));

/**
 * Walks `/artifacts` and yields the files that the globs match, each directory's in the order of their names. Everything
 * is asked of Incus, nothing of the guest's own programs. A directory is listed only if a file below it may match. Links
 * are not followed. What matches and is not yielded is in the report.
 */
export async function* walkArtifacts(
  guest: GuestReader,
  instance: string,
  globs: readonly string[],
  report: ArtifactReport,
  signal: AbortSignal,
): AsyncGenerator<FoundFile> {
  const named = globs.map(plainGlob);
  const unnamed = ownFiles.filter((file) => !named.includes(file));
  const left = { work: maxWork };
  const start = compileGlobs(globs);
  report.matchDirectory(start.matching);
  const top = await guest.stat(instance, artifactsPath, signal);
  if (top?.type === 'directory') yield* below('', start, 1);

  async function* below(directory: string, position: GlobPosition, depth: number): AsyncGenerator<FoundFile> {
    for (const name of await namesIn(guest, instance, directory, report, signal)) {
      const path = `${directory}${name}`;
      if (unnamed.includes(path)) continue;
      const here = position.after(name);
      const inside = here.after('/');
      left.work -= name.length * (position.cost + here.cost);
      if (left.work < 0) {
        report.stop('WorkLimit');
        return;
      }
      if (!here.matches && !inside.matches && !inside.leadsOn) continue;
      if (!isFitName(name)) {
        report.match(here.matching);
        report.leave('NameRefused', path);
        continue;
      }
      const found = await guest.stat(instance, `${artifactsPath}/${path}`, signal);
      if (found?.type === 'directory') {
        report.matchDirectory([...here.matching, ...inside.matching]);
        if (!inside.leadsOn) continue;
        if (depth < maxDepth) yield* below(`${path}/`, inside, depth + 1);
        else report.leave('DepthLimit', path);
      } else if (here.matches && found) {
        report.match(here.matching);
        if (found.type === 'file' && found.size > 0)
          yield { path, size: found.size, modifiedAt: found.modifiedAt };
        else report.leave('NotRegular', path);
      }
    }
  }
}

/** The names in a directory, in order. */
async function namesIn(
  guest: GuestReader,
  instance: string,
  directory: string,
  report: ArtifactReport,
  signal: AbortSignal,
): Promise<string[]> {
  const path = `${artifactsPath}/${directory}`.slice(0, -1);
  const names = await guest.list(instance, path, signal).catch((error: unknown) => {
    if (error instanceof IncusError && error.kind === 'TooLarge') return undefined;
    throw error;
  });
  if (!names || names.length > maxNames)
    report.leave('NameLimit', directory === '' ? path : directory.slice(0, -1));
  return names?.sort().slice(0, maxNames) ?? [];
}
