/** What stands at a path of a simulated Incus host. */
export type HostEntry =
  | { kind: 'directory' }
  | { kind: 'file'; size: number }
  | { kind: 'socket' }
  /** `target` may be relative to the link's own directory. */
  | { kind: 'symlink'; target: string };

/** Why a path did not resolve, as `errno` names it. */
export type HostError = 'ENOENT' | 'ENOTDIR' | 'ELOOP';

/** As many links as Linux follows before it answers ELOOP. */
const maxLinks = 40;

/**
 * The file system of a simulated Incus host, as far as disk devices and SFTP see it: directories, files and links.
 * Nothing of it lies on a real disk.
 */
export class HostFiles {
  readonly #entries = new Map<string, HostEntry>([['/', { kind: 'directory' }]]);

  /** Adds a directory, with its parents. Returns `path`. */
  directory(path: string): string {
    return this.#put(path, { kind: 'directory' });
  }

  file(path: string, size = 0): string {
    return this.#put(path, { kind: 'file', size });
  }

  socket(path: string): string {
    return this.#put(path, { kind: 'socket' });
  }

  symlink(path: string, target: string): string {
    return this.#put(path, { kind: 'symlink', target });
  }

  /** Removes `path` and all below it. */
  remove(path: string): void {
    for (const key of this.#entries.keys())
      if (key === path || key.startsWith(`${path}/`)) this.#entries.delete(key);
  }

  /** What `realpath(3)` answers: the path with every link followed, or why there is none. */
  realpath(path: string): { path: string; entry: HostEntry } | HostError {
    let rest = words(path);
    let at: string[] = [];
    let links = 0;
    while (rest.length > 0) {
      const [word = '', ...others] = rest;
      rest = others;
      if (word === '..') at = at.slice(0, -1);
      else {
        const entry = this.#entries.get(join([...at, word]));
        if (!entry) return 'ENOENT';
        if (entry.kind !== 'directory' && entry.kind !== 'symlink' && rest.length > 0) return 'ENOTDIR';
        if (entry.kind !== 'symlink') at = [...at, word];
        else {
          links += 1;
          if (links > maxLinks) return 'ELOOP';
          if (entry.target.startsWith('/')) at = [];
          rest = [...words(entry.target), ...rest];
        }
      }
    }
    const entry = this.#entries.get(join(at));
    return entry ? { path: join(at), entry } : 'ENOENT';
  }

  /** What stands at `path` itself, links not followed at the end. */
  lstat(path: string): HostEntry | undefined {
    const parts = words(path);
    const last = parts.pop();
    if (last === undefined) return { kind: 'directory' };
    const parent = this.realpath(join(parts));
    return typeof parent === 'string' ? undefined : this.#entries.get(join([...words(parent.path), last]));
  }

  exists(path: string): boolean {
    return typeof this.realpath(path) !== 'string';
  }

  #put(path: string, entry: HostEntry): string {
    const parts = words(path);
    for (let depth = 1; depth < parts.length; depth += 1) {
      const parent = join(parts.slice(0, depth));
      if (!this.#entries.has(parent)) this.#entries.set(parent, { kind: 'directory' });
    }
    this.#entries.set(join(parts), entry);
    return path;
  }
}

function words(path: string): string[] {
  return path.split('/').filter((word) => word !== '' && word !== '.');
}

function join(parts: readonly string[]): string {
  return `/${parts.join('/')}`;
}
