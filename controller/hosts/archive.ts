import { pipeline } from 'node:stream/promises';
import { createGzip, gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';

/** An archive in the making, wherever it is kept. Nobody sees it before it is published. */
export interface ArchiveDraft {
  /** Bytes it has. */
  readonly size: number;
  /** Adds bytes. False: there is no more room, or they cannot be written. */
  write(bytes: Buffer): Promise<boolean>;
  /** Takes the bytes from `size` on away again. */
  cutTo(size: number): Promise<void>;
  /** Ends it with the bytes for which it had kept room, and shows it. Returns its size; undefined if that failed. */
  publish(): Promise<number | undefined>;
  /** Leaves nothing of it. */
  discard(): Promise<void>;
}

/** The two blocks of zeros that end every tar. */
const endOfTar = Buffer.alloc(1024);
/** What stands at the end of every archive. */
export const endOfArchive: Buffer = gzipSync(endOfTar);

/**
 * Adds a file to an archive: whole, or not at all. Each file is a gzip member of its own, so that one that turns out
 * not to fit, or to be broken, is cut off again; members after each other are one gzip file (RFC 1952, 2.2).
 *
 * @param file how it is called there, how many bytes `content` has (more or fewer is an error), and when it was changed.
 * @returns false when there was no room for it.
 */
export async function addFile(
  draft: ArchiveDraft,
  file: { path: string; size: number; modifiedAt: number },
  content: AsyncIterable<Buffer>,
): Promise<boolean> {
  const before = draft.size;
  const seen = { full: false };
  try {
    await pipeline(blocksOf(file, content), createGzip(), async (compressed: AsyncIterable<Buffer>) => {
      for await (const bytes of compressed) {
        if (await draft.write(bytes)) continue;
        seen.full = true;
        return;
      }
    });
  } catch (error) {
    // Stopping before its end counts as an error there.
    if (!seen.full) {
      await draft.cutTo(before);
      throw error;
    }
  }
  if (seen.full) await draft.cutTo(before);
  return !seen.full;
}

/** The blocks of one file, as tar has them: header, content, padding. Not the end of the archive. */
async function* blocksOf(
  { path, size, modifiedAt }: { path: string; size: number; modifiedAt: number },
  content: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const tar = pack();
  const entry = tar.entry({ name: path, size, mode: 0o644, uid: 0, gid: 0, mtime: new Date(modifiedAt) });
  const filled = pipeline(content, entry).then(
    () => tar.finalize(),
    (error: unknown) => {
      tar.destroy(error as Error);
    },
  );
  let held = Buffer.alloc(0);
  try {
    for await (const block of tar as AsyncIterable<Buffer>) {
      held = Buffer.concat([held, block]);
      const ready = held.length - endOfTar.length;
      if (ready <= 0) continue;
      yield held.subarray(0, ready);
      held = held.subarray(ready);
    }
  } finally {
    tar.destroy();
    await filled;
  }
}
