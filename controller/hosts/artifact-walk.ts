import type { IncusClient } from '../incus/client.ts';
import { artifactsPath, logPath, resultPath } from '../incus/commands.ts';
import { IncusError } from '../incus/errors.ts';
import { compileGlobs, type GlobPosition } from './globs.ts';

/** What a walk reads a guest by. */
export type GuestReader = Pick<IncusClient, 'stat' | 'list'>;

/** A file that matches, by its path below `/artifacts`, and how much was in it when the walk came by. */
export interface FoundFile {
  path: string;
  size: number;
}

/** What a walk has left out so far. */
export interface Tally {
  /** Names that match, or may match, and cannot be kept: they are no regular file with content, or unfit as names. */
  skipped: number;
  /** A limit was reached. */
  truncated: boolean;
}

/** Directories within each other. */
export const maxDepth = 16;
/** Names looked at in one directory. */
export const maxNames = 10_000;
/** Steps of the globs in all: about a second of work. Only globs made to cost that much come near it. */
const maxWork = 50_000_000;
/** Bytes of a name, as file systems have it. */
const maxNameBytes = 255;
/** Control characters, and what Incus writes for bytes that are not UTF-8. */
const unfit = /[\u0000-\u001f\u007f-\u009f/\u2028\u2029\uFFFD]/u;

/** The runner's own files, of which the log and the status tell already. */
const ownFiles = [resultPath, logPath].map((path) => path.slice(artifactsPath.length + 1));

/**
 * Walks `/artifacts` and yields the files that the globs match, each directory's in the order of their names. Everything
 * is asked of Incus, nothing of the guest's own programs. A directory is listed only if a file below it may match. Links
 * are not followed.
 */
export async function* walkArtifacts(
  guest: GuestReader,
  instance: string,
  globs: readonly string[],
  tally: Tally,
  signal: AbortSignal,
): AsyncGenerator<FoundFile> {
  const named = ownFiles.filter((file) => globs.includes(file));
  const left = { work: maxWork };
  const top = await guest.stat(instance, artifactsPath, signal);
  if (top?.type === 'directory') yield* below('', compileGlobs(globs), 1);

  async function* below(directory: string, position: GlobPosition, depth: number): AsyncGenerator<FoundFile> {
    for (const name of await namesIn(guest, instance, directory, tally, signal)) {
      const path = `${directory}${name}`;
      if (ownFiles.includes(path) && !named.includes(path)) continue;
      const here = position.after(name);
      const inside = here.after('/');
      left.work -= name.length * (position.cost + here.cost);
      if (left.work < 0) {
        tally.truncated = true;
        return;
      }
      const { matches } = here;
      if (!matches && !inside.leadsOn) continue;
      const found = await guest.stat(instance, `${artifactsPath}/${path}`, signal);
      if (found?.type === 'directory') {
        if (!inside.leadsOn) continue;
        if (depth < maxDepth) yield* below(`${path}/`, inside, depth + 1);
        else tally.truncated = true;
      } else if (matches && found) {
        if (found.type === 'file' && found.size > 0) yield { path, size: found.size };
        else tally.skipped += 1;
      }
    }
  }
}

/** The names in a directory that can stand in an archive, in order. */
async function namesIn(
  guest: GuestReader,
  instance: string,
  directory: string,
  tally: Tally,
  signal: AbortSignal,
): Promise<string[]> {
  let names: string[];
  try {
    names = await guest.list(instance, `${artifactsPath}/${directory}`.slice(0, -1), signal);
  } catch (error) {
    if (!(error instanceof IncusError && error.kind === 'TooLarge')) throw error;
    tally.truncated = true;
    return [];
  }
  const fit = names.filter(isFit);
  tally.skipped += names.length - fit.length;
  if (fit.length > maxNames) tally.truncated = true;
  return fit.sort().slice(0, maxNames);
}

function isFit(name: string): boolean {
  return (
    name !== '' &&
    name !== '.' &&
    name !== '..' &&
    !unfit.test(name) &&
    Buffer.byteLength(name) <= maxNameBytes
  );
}
