import type PQueue from 'p-queue';
import type { Clock } from '../clock.ts';
import type { IncusClient } from '../incus/client.ts';
import { artifactsPath } from '../incus/commands.ts';
import type { ArchiveSummary } from '../incus/outcome.ts';
import { addFile, endOfArchive, type ArchiveDraft } from './archive.ts';
import { walkArtifacts, type FoundFile, type Tally } from './artifact-walk.ts';
import type { LogSource } from './live-logs.ts';

/** Where archives go. */
export interface ArchiveSink {
  /** Begins an archive that will end with `end`. Undefined: it cannot be kept. */
  begin(source: LogSource, end: Buffer): Promise<ArchiveDraft | undefined>;
}

/** What a guest is read by. */
export type ArtifactReader = Pick<IncusClient, 'stat' | 'list' | 'openRange'>;

/** How much goes into one archive at most. */
export interface ArchiveLimits {
  files: number;
  /** Bytes of all files together, before they are compressed. */
  contentBytes: number;
}
export const defaultLimits: ArchiveLimits = { files: 2_000, contentBytes: 4 * 2 ** 30 };
/** How long a job may be kept waiting for its artifacts, over all tries, in milliseconds. */
export const timeLimit = 5 * 60_000;
/** Artifacts that cannot be read so often are left: the result matters more. */
const patience = 3;

/** What is remembered of an instance until it is deleted. */
interface Effort {
  failures: number;
  /** When its time is up, in milliseconds since the epoch. */
  endsAt: number;
}

/**
 * Keeps what jobs leave in `/artifacts`. Whatever goes wrong with that costs artifacts, never the outcome of a job, nor
 * more than so much time.
 */
export class Artifacts {
  readonly #sink: ArchiveSink;
  readonly #clock: Clock;
  readonly #limits: ArchiveLimits;
  readonly #efforts = new Map<string, Effort>();

  constructor(sink: ArchiveSink, clock: Clock, limits: ArchiveLimits = defaultLimits) {
    this.#limits = limits;
    this.#sink = sink;
    this.#clock = clock;
  }

  /**
   * Makes the archive of the files that the globs match, now that nobody writes them any more. Returns undefined when
   * none was kept. Rejects when it is worth another try.
   *
   * @param turns lets as many archives be made at once as the connection to the guest's host carries
   */
  async collect(
    turns: PQueue,
    guest: ArtifactReader,
    source: LogSource,
    globs: readonly string[],
  ): Promise<ArchiveSummary | undefined> {
    const { instance } = source;
    const now = this.#clock.now();
    const effort = this.#efforts.get(instance) ?? { failures: 0, endsAt: now + timeLimit };
    this.#efforts.set(instance, effort);
    const overtime = new AbortController();
    const { promise: notBegun, resolve: giveUp } = Promise.withResolvers<undefined>();
    let whenOver = () => giveUp(undefined);
    const cancel = this.#clock.after(effort.endsAt - now, () => {
      overtime.abort();
      whenOver();
    });
    const work = () => {
      if (overtime.signal.aborted) return Promise.resolve(undefined);
      // What was begun is brought to an end: the archive then has what there was time for.
      whenOver = () => undefined;
      return this.#archive(guest, source, globs, overtime.signal);
    };
    try {
      return await Promise.race([turns.add(work), notBegun]);
    } catch (error) {
      effort.failures += 1;
      if (effort.failures < patience && !overtime.signal.aborted) throw error;
      return undefined;
    } finally {
      cancel();
    }
  }

  /** Forgets an instance. */
  forget(instance: string): void {
    this.#efforts.delete(instance);
  }

  async #archive(
    guest: ArtifactReader,
    source: LogSource,
    globs: readonly string[],
    signal: AbortSignal,
  ): Promise<ArchiveSummary | undefined> {
    const draft = await this.#sink.begin(source, endOfArchive);
    if (!draft) return undefined;
    try {
      const tally: Tally & { files: number } = { files: 0, skipped: 0, truncated: false };
      try {
        await fill(draft, guest, source.instance, globs, this.#limits, tally, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
        tally.truncated = true;
      }
      const bytes = await draft.publish();
      return bytes === undefined ? undefined : { ...tally, bytes };
    } finally {
      await draft.discard();
    }
  }
}

/** Puts what is found into the archive, until a limit is reached. */
async function fill(
  draft: ArchiveDraft,
  guest: ArtifactReader,
  instance: string,
  globs: readonly string[],
  limits: ArchiveLimits,
  tally: Tally & { files: number },
  signal: AbortSignal,
): Promise<void> {
  let content = 0;
  for await (const found of walkArtifacts(guest, instance, globs, tally, signal)) {
    if (tally.files >= limits.files || content + found.size > limits.contentBytes) {
      tally.truncated = true;
      return;
    }
    content += found.size;
    const added = await addFound(draft, guest, instance, found, signal);
    if (added === 'full') {
      tally.truncated = true;
      return;
    }
    if (added === 'added') tally.files += 1;
    else tally.skipped += 1;
  }
}

/** Adds one file as it is now. One that keeps changing under our hands is left out. */
async function addFound(
  draft: ArchiveDraft,
  guest: ArtifactReader,
  instance: string,
  found: FoundFile,
  signal: AbortSignal,
): Promise<'added' | 'full' | 'left'> {
  const path = `${artifactsPath}/${found.path}`;
  let { size } = found;
  for (let tries = 1; ; tries += 1) {
    const content = await guest.openRange(instance, path, 0, size, signal);
    // Smaller than when it was found, as the answer tells before its first byte.
    const length = Number(content?.headers['content-length']);
    if (!content || !(length > 0)) {
      content?.destroy();
      return 'left';
    }
    try {
      return (await addFile(draft, found.path, length, content)) ? 'added' : 'full';
    } catch (error) {
      if (signal.aborted) throw error;
      // If Incus does not answer this either, it was the connection.
      const now = await guest.stat(instance, path, signal);
      if (tries === 2 || now?.type !== 'file' || now.size === 0 || now.size > size) return 'left';
      ({ size } = now);
    } finally {
      content.destroy();
    }
  }
}
