import type { ArchiveSummary, ArtifactNote } from '../incus/outcome.ts';
import { shownPath } from './artifact-names.ts';
import { plainGlob } from './globs.ts';

/** Why something that matches is not in the archive, and how that is said: after `left out 3: `. */
const causes = {
  NotRegular: 'links, and files that are empty or no regular files',
  NameRefused: 'names that are not safe on every system',
  Changed: 'files that changed while they were read',
  SlowFile: 'files that the guest sent too slowly',
  FileLimit: 'files beyond the limit of their number',
  SizeLimit: 'files for which too few bytes were left before compression',
  ArchiveFull: 'files for which the archive had no more room',
  DepthLimit: 'directories too deep within others',
  NameLimit: 'directories with too many names, of which only the first were looked at',
} as const;
export type Cause = keyof typeof causes;

/** Causes that are no limit: what matches can be kept in no archive. */
const unfit: readonly Cause[] = ['NotRegular', 'NameRefused', 'Changed', 'SlowFile'];

/** Why the walk ended before its end. */
const ends = {
  TimeLimit: 'the time for artifacts was over before all were looked at',
  SlowGuest: 'the guest answers too slowly: not all paths were looked at',
  WorkLimit: 'the globs take too long to match: not all paths were looked at',
  CountLimit: 'more paths were not looked at',
} as const;

/** Paths that a note names. */
const namedPaths = 3;
/** Globs that a note names. */
const namedGlobs = 5;

/** What was left out of an archive, and why: counted, with the first few paths. */
export class ArtifactReport {
  readonly #globs: readonly string[];
  readonly #left = new Map<Cause, { count: number; paths: string[] }>();
  readonly #matched = new Set<number>();
  readonly #directories = new Set<number>();
  readonly #alike: string[] = [];
  #end: keyof typeof ends | undefined;

  constructor(globs: readonly string[]) {
    this.#globs = globs;
  }

  /** Something that matches is left out. */
  leave(cause: Cause, path: string): void {
    const left = this.#left.get(cause) ?? { count: 0, paths: [] };
    left.count += 1;
    if (left.paths.length < namedPaths) left.paths.push(path);
    this.#left.set(cause, left);
  }

  /** A path that is no directory matches these globs. */
  match(globs: readonly number[]): void {
    for (const glob of globs) this.#matched.add(glob);
  }

  /** A directory is named by these globs. */
  matchDirectory(globs: readonly number[]): void {
    for (const glob of globs) this.#directories.add(glob);
  }

  /** A path in the archive differs from another one there only in what some file systems ignore. */
  alike(path: string): void {
    this.#alike.push(path);
  }

  /** Not everything is looked at. */
  stop(why: keyof typeof ends): void {
    this.#end ??= why;
  }

  /** How many were left out for limits of the archive. */
  get beyondLimits(): number {
    return this.#count((cause) => !unfit.includes(cause));
  }

  summary(files: number, bytes: number): ArchiveSummary {
    return {
      ...{ files, bytes },
      skipped: this.#count((cause) => unfit.includes(cause)),
      truncated: this.beyondLimits > 0 || this.#end !== undefined,
      notes: this.#notes(),
    };
  }

  #count(counts: (cause: Cause) => boolean): number {
    return [...this.#left].reduce((sum, [cause, { count }]) => (counts(cause) ? sum + count : sum), 0);
  }

  #notes(): ArtifactNote[] {
    const left = [...this.#left].map(([reason, { count, paths }]) => {
      const message = `left out ${count}: ${causes[reason]}: ${listed(paths.map(shownPath), count)}`;
      return { reason, message };
    });
    const end = this.#end && { reason: this.#end, message: ends[this.#end] };
    return [...left, this.#alikeNote(), end, this.#unmatchedNote()].filter((note) => note !== undefined);
  }

  #alikeNote(): ArtifactNote | undefined {
    if (this.#alike.length === 0) return undefined;
    const paths = this.#alike.slice(0, namedPaths).map(shownPath);
    const message = `differ from another file only by case or accents, and replace it on some systems: ${listed(paths, this.#alike.length)}`;
    return { reason: 'NamesAlike', message };
  }

  /** Only where all was looked at is it known that nothing matches. */
  #unmatchedNote(): ArtifactNote | undefined {
    const unmatched = this.#globs.flatMap((glob, index) =>
      this.#end === undefined && !this.#matched.has(index) ? [this.#unmatched(glob, index)] : [],
    );
    if (unmatched.length === 0) return undefined;
    const message = `no file matches ${listed(unmatched.slice(0, namedGlobs), unmatched.length)}`;
    return { reason: 'NoMatch', message };
  }

  #unmatched(glob: string, index: number): string {
    const hint = this.#directories.has(index)
      ? ` (a directory; ${shownPath(everythingBelow(glob))} is all that is in it)`
      : '';
    return `${shownPath(glob)}${hint}`;
  }
}

/** Where no archive was made. */
export function noArchive(reason: string, message: string): ArchiveSummary {
  return { files: 0, bytes: 0, skipped: 0, truncated: false, notes: [{ reason, message }] };
}

function everythingBelow(glob: string): string {
  const directory = plainGlob(glob).replace(/\/$/, '');
  return directory === '' ? '**' : `${directory}/**`;
}

/** The first few of `count` things, and how many more there are. */
function listed(first: readonly string[], count: number): string {
  const more = count - first.length;
  return `${first.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}
