import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { maxManifestBytes } from '../api/yaml.ts';
import { UsageError } from './usage-error.ts';

/** Endings of the files that are read of a directory, as kubectl has them. */
const endings = ['.json', '.yaml', '.yml'];
const mostFiles = 1000;
/** UTF-16 takes two bytes for most of what UTF-8 has in one. */
const maxFileBytes = 2 * maxManifestBytes + 2;
const maxTotalBytes = 64 * maxManifestBytes;

/** A manifest file. */
export interface ManifestBytes {
  /** How messages call it. */
  name: string;
  bytes: Buffer;
}

/**
 * Reads manifest files as `kubectl -f` does: `-` is standard input; of a directory, the files in it whose names end with
 * `.json`, `.yaml` or `.yml`, in the order of their names.
 *
 * @throws {UsageError} naming the one that cannot be read.
 */
export async function readManifestFiles(paths: readonly string[]): Promise<ManifestBytes[]> {
  const files: ManifestBytes[] = [];
  let total = 0;
  for (const path of paths) {
    for (const file of path === '-' ? [path] : await filesAt(path)) {
      const bytes = await readable(file, () => read(file));
      total += bytes.length;
      if (total > maxTotalBytes)
        throw new UsageError(`${path}: the files have more than ${maxTotalBytes} bytes`);
      files.push({ name: file === '-' ? 'stdin' : file, bytes });
    }
  }
  return files;
}

async function filesAt(path: string): Promise<string[]> {
  const { isDirectory } = await readable(path, async () => ({
    isDirectory: (await stat(path)).isDirectory(),
  }));
  if (!isDirectory) return [path];
  const names = await readable(path, () => readdir(path));
  const files: string[] = [];
  for (const name of names.filter((one) => endings.some((ending) => one.endsWith(ending))).sort()) {
    const file = join(path, name);
    if ((await readable(file, () => stat(file))).isFile()) files.push(file);
  }
  if (files.length === 0) throw new UsageError(`${path}: there is no file ${endings.join(', ')} in it`);
  if (files.length > mostFiles) throw new UsageError(`${path}: there are more than ${mostFiles} files in it`);
  return files;
}

/** Bytes of a file, or of a pipe. */
async function read(file: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  const stream = file === '-' ? process.stdin : createReadStream(file);
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > maxFileBytes) throw new Error(`it has more than ${maxFileBytes} bytes`);
  }
  return Buffer.concat(chunks);
}

async function readable<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new UsageError(`${path === '-' ? 'stdin' : path} cannot be read: ${(error as Error).message}`);
  }
}
