import type { Clock } from '../clock.ts';
import { FileDraft } from './archive-file.ts';
import { nextToEvict } from './eviction.ts';
import {
  blankLogs,
  readAt,
  removeFile,
  removeJob,
  scan,
  sizeOf,
  writeAt,
  writeTruncated,
  type StoredLogs,
} from './log-files.ts';
import { fileOf, isSafe, type JobName, type LogName } from './log-name.ts';

export interface LogStoreOptions {
  /** Directory of the logs, on a volume that outlives the process. Made if missing. */
  directory: string;
  /** The most bytes kept of one CiJob, over all of its attempts. */
  maxBytes: number;
  /** The most bytes of the archive of one CiJob's artifacts. */
  maxArchiveBytes: number;
  /** The most bytes kept of all, logs and archives. What is finished goes first, shared fairly (eviction.ts). */
  totalBytes: number;
  clock: Clock;
  /** Whether a CiJob may still write: its log is not removed to make room. */
  isLive: (job: JobName) => boolean;
  /** Hears of what went wrong with the disk. No log is worth a job: nothing here fails for it. */
  onError: (what: string, error: unknown) => void;
}

/** For so long after a piece of it was read, a log counts as being read; in milliseconds. */
const readerPause = 60_000;

/**
 * The logs of CiJobs beyond their instances, and the archives of what they left. A log is written once, from its first byte to its last: what is there
 * already says where to go on, so that a controller that was killed loses and repeats nothing.
 */
export class LogStore {
  readonly #options: LogStoreOptions;
  readonly #jobs = new Map<string, StoredLogs>();
  readonly #changes = new Map<string, PromiseWithResolvers<undefined>>();
  /** Bytes of archives in the making, by namespace. */
  readonly #drafts = new Map<string, number>();
  #total = 0;

  private constructor(options: LogStoreOptions) {
    this.#options = options;
  }

  /** Takes up what the directory holds. Rejects when it cannot be used at all. */
  static async open(options: LogStoreOptions): Promise<LogStore> {
    const store = new LogStore(options);
    for (const logs of await scan(options.directory)) {
      store.#jobs.set(logs.uid, logs);
      store.#total += bytesOf(logs);
    }
    return store;
  }

  /** Bytes of all logs and archives. */
  get totalBytes(): number {
    return this.#total;
  }

  /** Bytes there are of a log; undefined when there is none. */
  size({ uid, attempt }: Pick<LogName, 'uid' | 'attempt'>): number | undefined {
    return this.#jobs.get(uid)?.sizes.get(attempt);
  }

  /** Whether the log was cut short by a limit. */
  isTruncated({ uid, attempt }: Pick<LogName, 'uid' | 'attempt'>): boolean {
    return this.#jobs.get(uid)?.truncated.has(attempt) ?? false;
  }

  /** The newest attempt of which there is a log. */
  newestAttempt(uid: string): number | undefined {
    const attempts = [...(this.#jobs.get(uid)?.sizes.keys() ?? [])];
    return attempts.length === 0 ? undefined : Math.max(...attempts);
  }

  /**
   * Takes bytes of a log. Those that are there already are passed over. One writer a log at a time.
   *
   * @param offset where in the log the chunk begins.
   * @returns false when not all of it was kept: a limit was reached, or the disk is full. Nothing after it is of use.
   */
  async write(log: LogName, offset: number, chunk: Buffer): Promise<boolean> {
    if (!isSafe(log)) return false;
    const logs = this.#of(log);
    const held = logs.sizes.get(log.attempt) ?? 0;
    if (offset > held) return false;
    const fresh = chunk.subarray(held - offset);
    if (!logs.sizes.has(log.attempt)) logs.sizes.set(log.attempt, 0);
    if (fresh.length === 0) return true;
    await this.#dropEarlierAttempts(logs, log.attempt, fresh.length);
    await this.#makeRoom(fresh.length, log);
    // From here to the count in `put` nothing waits, so that two logs never take the same room.
    const { maxBytes, totalBytes } = this.#options;
    const room = Math.min(maxBytes - logBytesOf(logs), totalBytes - this.#total);
    const kept = fresh.subarray(0, Math.max(0, room));
    const whole = await this.#put(logs, log, held, kept);
    logs.writtenAt = this.#options.clock.now();
    this.touch(log.uid);
    if (whole && kept.length < fresh.length) await this.#noteTruncated(logs, log.attempt);
    return whole && kept.length === fresh.length;
  }

  /** Up to `length` bytes of a log. Rejects when it is not there any more. */
  read(log: LogName, offset: number, length: number): Promise<Buffer> {
    this.#noteReader(log);
    return readAt(this.#options.directory, log, offset, length);
  }

  /** Bytes of the archive of an attempt's artifacts; undefined when there is none. */
  archiveSize({ uid, attempt }: Pick<LogName, 'uid' | 'attempt'>): number | undefined {
    return this.#jobs.get(uid)?.archives.get(attempt);
  }

  /** The attempt of which there is an archive. Only the newest one is kept. */
  archivedAttempt(uid: string): number | undefined {
    return [...(this.#jobs.get(uid)?.archives.keys() ?? [])].at(-1);
  }

  /** Begins the archive of an attempt's artifacts, which will end with `end`. Undefined: it cannot be kept. */
  async beginArchive(log: LogName, end: Buffer): Promise<FileDraft | undefined> {
    if (!isSafe(log)) return undefined;
    const { directory, maxArchiveBytes, totalBytes, onError } = this.#options;
    const logs = this.#of(log);
    let size = 0;
    return FileDraft.begin(fileOf(directory, log, 'tar.gz'), end, {
      take: async (bytes) => {
        if (size + bytes > maxArchiveBytes) return false;
        await this.#makeRoom(bytes, log);
        if (this.#total + bytes > totalBytes) return false;
        this.#total += bytes;
        this.#countDraft(log, bytes);
        size += bytes;
        return true;
      },
      give: (bytes) => {
        this.#total -= bytes;
        this.#countDraft(log, -bytes);
        size -= bytes;
      },
      keep: (bytes) => {
        this.#countDraft(log, -bytes);
        return this.#keepArchive(logs, log.attempt, bytes);
      },
      onError: (error) => onError(`artifacts of ${log.namespace}/${log.name}`, error),
    });
  }

  /** Up to `length` bytes of an archive. Rejects when it is not there any more. */
  readArchive(log: LogName, offset: number, length: number): Promise<Buffer> {
    this.#noteReader(log);
    return readAt(this.#options.directory, log, offset, length, 'tar.gz');
  }

  /** Resolves when something of a CiJob's log has changed, or {@link touch} was called. */
  changed(uid: string): Promise<undefined> {
    const waiting = this.#changes.get(uid) ?? Promise.withResolvers<undefined>();
    this.#changes.set(uid, waiting);
    return waiting.promise;
  }

  /** Has those who wait for a log look again. */
  touch(uid: string): void {
    this.#changes.get(uid)?.resolve(undefined);
    this.#changes.delete(uid);
  }

  /** Removes the logs of CiJobs that are not there any more. */
  async sweep(known: ReadonlySet<string>): Promise<void> {
    for (const logs of [...this.#jobs.values()]) if (!known.has(logs.uid)) await this.#remove(logs);
    for (const uid of [...this.#changes.keys()]) if (!known.has(uid)) this.touch(uid);
  }

  #of(job: JobName): StoredLogs {
    const known = this.#jobs.get(job.uid);
    if (known) return known;
    const logs = blankLogs(job, this.#options.clock.now());
    this.#jobs.set(job.uid, logs);
    return logs;
  }

  /** Counts an archive that is there now, whose room is taken already, and removes those before it. */
  async #keepArchive(logs: StoredLogs, attempt: number, bytes: number): Promise<void> {
    const { directory, clock, onError } = this.#options;
    if (this.#jobs.get(logs.uid) !== logs) {
      // Removed meanwhile: nobody counts these bytes any more.
      this.#total -= bytes;
      await removeJob(directory, logs).catch((error: unknown) => onError('artifacts', error));
      return;
    }
    for (const [earlier, size] of [...logs.archives]) {
      this.#total -= size;
      logs.archives.delete(earlier);
      if (earlier === attempt) continue;
      await removeFile(directory, { ...logs, attempt: earlier }, 'tar.gz').catch((error: unknown) =>
        onError(`artifacts of ${logs.namespace}/${logs.name}`, error),
      );
    }
    logs.archives.set(attempt, bytes);
    logs.writtenAt = clock.now();
  }

  /** Writes bytes, making room by force where the disk is smaller than the limit. Returns whether all are there. */
  async #put(logs: StoredLogs, log: LogName, offset: number, bytes: Buffer): Promise<boolean> {
    const { directory, onError } = this.#options;
    // The room is taken at once, but the size grows only when the bytes can be read.
    this.#total += bytes.length;
    for (;;) {
      try {
        await writeAt(directory, log, offset, bytes);
        break;
      } catch (error) {
        const full = (error as NodeJS.ErrnoException).code === 'ENOSPC';
        if (full && (await this.#evict(log))) continue;
        onError(`log of ${log.namespace}/${log.name}`, error);
        const held = Math.min(await sizeOf(directory, log), offset + bytes.length);
        this.#total -= offset + bytes.length - Math.max(held, offset);
        logs.sizes.set(log.attempt, Math.max(held, offset));
        return false;
      }
    }
    if (this.#jobs.get(log.uid) === logs) {
      logs.sizes.set(log.attempt, offset + bytes.length);
      return true;
    }
    // Removed meanwhile: nobody counts these bytes any more.
    this.#total -= bytes.length;
    await removeJob(directory, logs).catch((error: unknown) =>
      onError(`log of ${log.namespace}/${log.name}`, error),
    );
    return false;
  }

  /** What an earlier attempt said matters less than what the current one says. */
  async #dropEarlierAttempts(logs: StoredLogs, current: number, needed: number): Promise<void> {
    const { directory, maxBytes, onError } = this.#options;
    for (const attempt of [...logs.sizes.keys()].sort((a, b) => a - b)) {
      if (attempt >= current || logBytesOf(logs) + needed <= maxBytes) return;
      try {
        await removeFile(directory, { ...logs, attempt }, 'log');
      } catch (error) {
        onError(`log of ${logs.namespace}/${logs.name}`, error);
      }
      this.#total -= logs.sizes.get(attempt) ?? 0;
      logs.sizes.delete(attempt);
    }
  }

  /** A namespace has so many more bytes of archives in the making. */
  #countDraft({ namespace }: JobName, bytes: number): void {
    const left = (this.#drafts.get(namespace) ?? 0) + bytes;
    if (left === 0) this.#drafts.delete(namespace);
    else this.#drafts.set(namespace, left);
  }

  #noteReader({ uid }: LogName): void {
    const logs = this.#jobs.get(uid);
    if (logs) logs.readAt = this.#options.clock.now();
  }

  /** Evicts logs until there is room for `needed` more bytes of a job, as far as that is fair. */
  async #makeRoom(needed: number, writer: JobName): Promise<void> {
    const { totalBytes } = this.#options;
    while (this.#total + needed > totalBytes && (await this.#evict(writer)));
  }

  async #evict(writer: JobName): Promise<boolean> {
    const { isLive, clock } = this.#options;
    const kept = [...this.#jobs.values()].map((logs) => ({
      ...{ namespace: logs.namespace, uid: logs.uid, writtenAt: logs.writtenAt, logs },
      bytes: bytesOf(logs),
      live: isLive(logs),
      read: clock.now() - logs.readAt < readerPause,
    }));
    const drafts = [...this.#drafts].map(([namespace, bytes]) => ({ namespace, bytes }));
    const next = nextToEvict(kept, writer, drafts);
    if (next) await this.#remove(next.logs);
    return next !== undefined;
  }

  async #remove(logs: StoredLogs): Promise<void> {
    // Forgotten first, so that nobody else counts or removes it meanwhile.
    if (!this.#jobs.delete(logs.uid)) return;
    this.#total -= bytesOf(logs);
    try {
      await removeJob(this.#options.directory, logs);
    } catch (error) {
      this.#options.onError(`log of ${logs.namespace}/${logs.name}`, error);
    }
    this.touch(logs.uid);
  }

  async #noteTruncated(logs: StoredLogs, attempt: number): Promise<void> {
    if (logs.truncated.has(attempt)) return;
    logs.truncated.add(attempt);
    try {
      await writeTruncated(this.#options.directory, logs, logs.truncated);
    } catch (error) {
      this.#options.onError(`log of ${logs.namespace}/${logs.name}`, error);
    }
  }
}

/** Bytes of a CiJob's logs. */
function logBytesOf({ sizes }: StoredLogs): number {
  return sumOf(sizes.values());
}

/** Bytes of all that is kept of a CiJob. */
function bytesOf({ sizes, archives }: StoredLogs): number {
  return sumOf(sizes.values()) + sumOf(archives.values());
}

function sumOf(numbers: Iterable<number>): number {
  let sum = 0;
  for (const one of numbers) sum += one;
  return sum;
}
