import { mkdir, open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { draftPathOf } from '../file-names.ts';

/** Where the bytes of a draft are counted. */
export interface Room {
  /** Takes room for so many bytes; false when there is none. */
  take(bytes: number): Promise<boolean>;
  /** Gives room back. */
  give(bytes: number): void;
  /** The file is there, with so many bytes for which room was taken. */
  keep(bytes: number): Promise<void>;
  onError(error: unknown): void;
}

const draftName = /\.[0-9a-f]{12}\.new$/;

/** Whether a file is what a process that was killed has left of a draft. */
export function isDraft(file: string): boolean {
  return draftName.test(file);
}

/**
 * A file that is written under another name and shown when it is whole, so that a process that is killed leaves the
 * whole of it or none. Nothing here rejects: what cannot be written is not kept.
 */
export class FileDraft {
  readonly #path: string;
  readonly #draftPath: string;
  readonly #end: Buffer;
  readonly #room: Room;
  readonly #handle: FileHandle;
  #size = 0;
  /** Bytes of room. */
  #taken: number;
  #over = false;

  private constructor(path: string, draftPath: string, end: Buffer, room: Room, handle: FileHandle) {
    this.#path = path;
    this.#draftPath = draftPath;
    this.#end = end;
    this.#room = room;
    this.#handle = handle;
    this.#taken = end.length;
  }

  /** Begins a file that will end with `end`, for which room is taken at once. Undefined: it cannot be kept. */
  static async begin(path: string, end: Buffer, room: Room): Promise<FileDraft | undefined> {
    if (!(await room.take(end.length))) return undefined;
    // Its own name each time: of two processes that both think they lead, each writes its own.
    const draftPath = draftPathOf(path, '.new');
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      return new FileDraft(path, draftPath, end, room, await open(draftPath, 'wx', 0o600));
    } catch (error) {
      room.give(end.length);
      room.onError(error);
      return undefined;
    }
  }

  /** Bytes it has, without its end. */
  get size(): number {
    return this.#size;
  }

  /** Adds bytes. False: there is no more room, or they cannot be written. */
  async write(bytes: Buffer): Promise<boolean> {
    if (!(await this.#room.take(bytes.length))) return false;
    this.#taken += bytes.length;
    try {
      await this.#put(bytes);
      return true;
    } catch (error) {
      this.#give(bytes.length);
      this.#room.onError(error);
      return false;
    }
  }

  /** Takes the bytes from `size` on away again. */
  cutTo(size: number): Promise<void> {
    this.#give(this.#size - size);
    // What lies beyond is written over, or cut off at the end.
    this.#size = size;
    return Promise.resolve();
  }

  /** Shows the file in place of an older one. Returns its size; undefined when that failed. */
  async publish(): Promise<number | undefined> {
    try {
      await this.#put(this.#end);
      await this.#handle.truncate(this.#size);
      await this.#handle.sync();
      await this.#handle.close();
      await rename(this.#draftPath, this.#path);
    } catch (error) {
      this.#room.onError(error);
      return undefined;
    }
    this.#over = true;
    await this.#room.keep(this.#size);
    await syncDirectory(dirname(this.#path)).catch((error: unknown) => this.#room.onError(error));
    return this.#size;
  }

  /** Leaves nothing of it, unless it was published. */
  async discard(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    this.#give(this.#taken);
    await this.#handle.close().catch(() => undefined);
    await unlink(this.#draftPath).catch(() => undefined);
  }

  #give(bytes: number): void {
    this.#taken -= bytes;
    this.#room.give(bytes);
  }

  async #put(bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.#size + done);
      done += bytesWritten;
    }
    this.#size += bytes.length;
  }
}

/** Makes a rename last through a power cut. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
