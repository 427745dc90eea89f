import { constants } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, rmdir, stat, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isDraft } from './archive-file.ts';
import { attemptOf, directoryOf, fileOf, isSafe, type JobName, type Kind, type LogName } from './log-name.ts';

/*
 * Logs as files: ROOT/NAMESPACE/NAME/UID/ATTEMPT.log, and the attempts that were cut short in meta.json beside them.
 * The archive of an attempt's artifacts is ATTEMPT.tar.gz.
 */

/** What is found of one CiJob. */
export interface StoredLogs extends JobName {
  /** Bytes of each attempt's log. */
  sizes: Map<number, number>;
  /** Bytes of each attempt's archive. */
  archives: Map<number, number>;
  /** Attempts whose log is not whole: a limit was reached. */
  truncated: Set<number>;
  /** When the newest of the files was last written, in milliseconds since the epoch. */
  writtenAt: number;
  /** When something of it was last read by this process. */
  readAt: number;
}

const metaFile = 'meta.json';

/** Reads what is there, and removes what a process that was killed had not finished. Files that are not ours are left alone. */
export async function scan(root: string): Promise<StoredLogs[]> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  const found: StoredLogs[] = [];
  for (const namespace of await directories(root)) {
    for (const name of await directories(join(root, namespace))) {
      for (const uid of await directories(join(root, namespace, name))) {
        const job = { namespace, name, uid };
        if (isSafe(job)) found.push(await scanJob(root, job));
      }
    }
  }
  return found;
}

async function scanJob(root: string, job: JobName): Promise<StoredLogs> {
  const directory = directoryOf(root, job);
  const logs = blankLogs(job, 0);
  for (const file of await readdir(directory)) {
    if (isDraft(file)) await unlink(join(directory, file));
    const found = attemptOf(file);
    if (!found) continue;
    const { size, mtimeMs } = await stat(join(directory, file));
    (found.kind === 'log' ? logs.sizes : logs.archives).set(found.attempt, size);
    logs.writtenAt = Math.max(logs.writtenAt, mtimeMs);
  }
  logs.truncated = await readTruncated(join(directory, metaFile));
  return logs;
}

/** Nothing is there yet. */
export function blankLogs({ namespace, name, uid }: JobName, writtenAt: number): StoredLogs {
  return {
    ...{ namespace, name, uid, writtenAt },
    readAt: 0,
    sizes: new Map(),
    archives: new Map(),
    truncated: new Set(),
  };
}

async function directories(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

async function readTruncated(file: string): Promise<Set<number>> {
  try {
    const meta: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (typeof meta !== 'object' || meta === null || !('truncated' in meta)) return new Set();
    const { truncated } = meta;
    return new Set(
      Array.isArray(truncated) ? truncated.filter((one): one is number => Number.isInteger(one)) : [],
    );
  } catch {
    // Never written, or garbled by a power cut: it only says which logs were cut short.
    return new Set();
  }
}

/** Writes which attempts were cut short: whole or not at all. */
export async function writeTruncated(
  root: string,
  job: JobName,
  truncated: ReadonlySet<number>,
): Promise<void> {
  const file = join(directoryOf(root, job), metaFile);
  await writeFile(`${file}.new`, `${JSON.stringify({ ...job, truncated: [...truncated] })}\n`, {
    mode: 0o600,
  });
  await rename(`${file}.new`, file);
}

/**
 * Writes bytes at their own place in the log. Not by appending: two processes that both think they lead then write
 * the same bytes to the same place, and nothing shows twice.
 */
export async function writeAt(root: string, log: LogName, offset: number, bytes: Buffer): Promise<void> {
  await mkdir(directoryOf(root, log), { recursive: true, mode: 0o700 });
  const file = await open(fileOf(root, log), constants.O_WRONLY | constants.O_CREAT, 0o600);
  try {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
      done += bytesWritten;
    }
  } finally {
    await file.close();
  }
}

/** Up to `length` bytes from `offset` on; fewer at the end of the file. Rejects with ENOENT when there is none. */
export async function readAt(
  root: string,
  log: LogName,
  offset: number,
  length: number,
  kind: Kind = 'log',
): Promise<Buffer> {
  const file = await open(fileOf(root, log, kind), 'r');
  try {
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await file.read(buffer, 0, length, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Bytes of a log; 0 when there is none. */
export async function sizeOf(root: string, log: LogName): Promise<number> {
  try {
    return (await stat(fileOf(root, log))).size;
  } catch {
    return 0;
  }
}

export async function removeFile(root: string, log: LogName, kind: Kind): Promise<void> {
  await unlink(fileOf(root, log, kind));
}

/** Removes all that is kept of a CiJob, and the directories above that are empty then. */
export async function removeJob(root: string, job: JobName): Promise<void> {
  const directory = directoryOf(root, job);
  await rm(directory, { recursive: true, force: true });
  // Other jobs of that name or namespace may have theirs there, or be about to.
  await rmdir(dirname(directory)).catch(() => undefined);
  await rmdir(dirname(dirname(directory))).catch(() => undefined);
}
