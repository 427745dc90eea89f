import { Readable } from 'node:stream';
import { Refusal, type SimReply, sync } from './reply.ts';

/** What may stand at a path of a simulated guest, well-meant or hostile. */
export type GuestEntry =
  | {
      kind: 'file';
      content: string | Buffer;
      uid?: number;
      gid?: number;
      mode?: string;
      /** As Go prints it; the default is the beginning of 2026. */
      modified?: string;
    }
  /** A file of that many zero bytes that takes no memory. */
  | { kind: 'zeros'; size: number }
  /** A file of that size which the guest serves as slowly as it likes: nothing comes but by {@link GuestFiles.drip}. */
  | { kind: 'drip'; size: number }
  | { kind: 'fifo' }
  | { kind: 'symlink'; target: string }
  | { kind: 'directory' };

/** How much of a large file is made at a time, in bytes. */
const chunk = 64 * 1024;

/** The file system of a simulated guest, read by `/1.0/instances/N/files`. It outlives reboots. */
export class GuestFiles {
  /**
   * A GET of a FIFO was sent. Incus's file server then hangs on it; everything goes on until the guest reboots by
   * itself, and then nothing does (measured on 6.0.4).
   */
  stuck = false;
  readonly #entries = new Map<string, GuestEntry>();
  readonly #watchers = new Set<() => void>();
  readonly #drips = new Set<Readable>();

  constructor() {
    for (const path of ['/', '/artifacts', '/workspace', '/tmp', '/etc', '/root'])
      this.#entries.set(path, { kind: 'directory' });
    this.write('/etc/passwd', 'root:x:0:0::/root:/bin/sh\n');
    this.write('/etc/pikaci/guest-contract', '1\n2\n');
  }

  set(path: string, entry: GuestEntry): void {
    const at = normal(path);
    this.#entries.set(at, entry);
    for (let parent = dirname(at); !this.#entries.has(parent); parent = dirname(parent))
      this.#entries.set(parent, { kind: 'directory' });
    for (const changed of this.#watchers) changed();
  }

  /** Calls `changed` whenever something was written. Returns how to stop. */
  watch(changed: () => void): () => void {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  }

  get(path: string): GuestEntry | undefined {
    return this.#entries.get(this.#resolve(normal(path)));
  }

  write(path: string, content: string): void {
    this.set(path, { kind: 'file', content });
  }

  remove(path: string): void {
    this.#entries.delete(this.#resolve(normal(path)));
  }

  append(path: string, text: string): void {
    const before = this.get(path);
    this.write(path, (before?.kind === 'file' ? before.content.toString() : '') + text);
  }

  /** Reads of dripping files that are under way. */
  get dripping(): number {
    return this.#drips.size;
  }

  /** Has so many more bytes of each read of a dripping file come. */
  drip(bytes: number): void {
    for (const read of this.#drips) read.push(Buffer.alloc(bytes));
  }

  /** Text of a plain file, as a test wants to see it. */
  text(path: string): string | undefined {
    const entry = this.get(path);
    return entry?.kind === 'file' ? entry.content.toString() : undefined;
  }

  /** Answers HEAD or GET of a path. */
  reply(method: string, path: string, range: string | undefined): SimReply {
    const at = this.#resolve(normal(path));
    const entry = this.#entries.get(at);
    if (!entry) throw new Refusal(404, 'Not Found');
    const type =
      entry.kind === 'zeros' || entry.kind === 'fifo' || entry.kind === 'drip' ? 'file' : entry.kind;
    const file: { uid?: number; gid?: number; mode?: string; modified?: string } =
      entry.kind === 'file' ? entry : {};
    const headers: Record<string, string> = {
      'x-incus-uid': String(file.uid ?? 0),
      'x-incus-gid': String(file.gid ?? 0),
      'x-incus-mode': file.mode ?? { file: '0644', directory: '0755', symlink: '0777' }[type],
      'x-incus-modified': file.modified ?? '2026-01-01 00:00:00 +0000 UTC',
      'x-incus-type': type,
    };
    if (entry.kind === 'directory') {
      if (method === 'HEAD')
        return {
          status: 200,
          headers: { 'content-type': 'application/json', ...headers },
          body: Buffer.alloc(0),
        };
      return sync(this.#names(at), headers);
    }
    if (entry.kind === 'symlink' && method === 'HEAD')
      return {
        status: 200,
        headers: { 'content-type': 'application/json', ...headers },
        body: Buffer.alloc(0),
      };
    headers['content-type'] = 'application/octet-stream';
    const size = this.#size(at, entry);
    if (method === 'HEAD')
      return { status: 200, headers: { ...headers, 'content-length': String(size) }, body: Buffer.alloc(0) };
    if (entry.kind === 'fifo') {
      this.stuck = true;
      return { status: 200, headers, body: 'never' };
    }
    headers['accept-ranges'] = 'bytes';
    headers['content-disposition'] =
      `inline;filename=${Buffer.from(at.slice(at.lastIndexOf('/') + 1)).toString('latin1')}`;
    return this.#ranged(at, entry, size, headers, range);
  }

  #ranged(
    at: string,
    entry: GuestEntry,
    size: number,
    headers: Record<string, string>,
    range: string | undefined,
  ): SimReply {
    const wanted = range === undefined ? undefined : parseRange(range, size);
    if (wanted === 'unsatisfiable')
      return {
        status: 416,
        headers: { ...headers, 'content-range': `bytes */${size}`, 'content-type': 'text/plain' },
        body: Buffer.from('invalid range: failed to overlap\n'),
      };
    const [from, to] = wanted ?? [0, size];
    if (wanted) headers['content-range'] = `bytes ${from}-${to - 1}/${size}`;
    headers['content-length'] = String(to - from);
    const body =
      entry.kind === 'zeros'
        ? zeros(to - from)
        : entry.kind === 'drip'
          ? this.#dripped()
          : Buffer.from(this.#bytes(at, entry).subarray(from, to));
    return { status: wanted ? 206 : 200, headers, body };
  }

  #dripped(): Readable {
    const read = new Readable({ read: () => undefined });
    this.#drips.add(read);
    read.once('close', () => this.#drips.delete(read));
    return read;
  }

  #size(at: string, entry: GuestEntry): number {
    return entry.kind === 'zeros' || entry.kind === 'drip' ? entry.size : this.#bytes(at, entry).length;
  }

  #bytes(at: string, entry: GuestEntry): Buffer {
    if (entry.kind === 'file') return Buffer.from(entry.content);
    // A link is shown by its target, made absolute; it is never followed.
    if (entry.kind === 'symlink') return Buffer.from(absolute(entry.target, dirname(at)));
    return Buffer.alloc(0);
  }

  #names(directory: string): string[] {
    const prefix = directory === '/' ? '/' : `${directory}/`;
    return [...this.#entries.keys()]
      .filter((path) => path !== '/' && path.startsWith(prefix) && !path.slice(prefix.length).includes('/'))
      .map((path) => path.slice(prefix.length));
  }

  /** Follows links in the directories of a path, but not at its end. */
  #resolve(path: string, links = 0): string {
    const parts = path.split('/').slice(1);
    for (let depth = 1; depth < parts.length; depth += 1) {
      const parent = `/${parts.slice(0, depth).join('/')}`;
      const entry = this.#entries.get(parent);
      if (entry?.kind === 'symlink' && links < 40)
        return this.#resolve(
          normal(`${absolute(entry.target, dirname(parent))}/${parts.slice(depth).join('/')}`),
          links + 1,
        );
    }
    return path;
  }
}

/** As Go's http.ServeContent reads a single range: from and to (exclusive). */
function parseRange(range: string, size: number): [number, number] | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(range);
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const [, first = '', last = ''] = match;
  if (first === '') return [Math.max(0, size - Number(last)), size];
  const from = Number(first);
  if (from >= size) return 'unsatisfiable';
  return [from, Math.min(size, last === '' ? size : Number(last) + 1)];
}

function zeros(size: number): Readable {
  let left = size;
  return new Readable({
    read() {
      const now = Math.min(left, chunk);
      left -= now;
      this.push(now === 0 ? null : Buffer.alloc(now));
    },
  });
}

function normal(path: string): string {
  const parts: string[] = [];
  for (const word of path.split('/'))
    if (word === '..') parts.pop();
    else if (word !== '' && word !== '.') parts.push(word);
  return `/${parts.join('/')}`;
}

function dirname(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/';
}

function absolute(target: string, directory: string): string {
  return target.startsWith('/') ? target : normal(`${directory}/${target}`);
}
