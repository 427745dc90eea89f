import type { GuestFile } from './client.ts';

/** What was read of a guest when its runner had exited. */
export interface Collected {
  /** `/artifacts/result.json`, or its first bytes. */
  result: GuestFile;
  /** The end of `/artifacts/guest.log`, and the size of the whole. */
  log: GuestFile;
  /** Of an instance that has stopped: why it did not start, if it says. */
  startErrors?: string | undefined;
  /** What was kept of the job's artifacts; undefined when it names none. */
  artifacts?: ArchiveSummary | undefined;
  /** Why not all of it could be read, although the result was; undefined when all was. */
  missed?: string | undefined;
}

/** Something that a user should know of an archive of artifacts: what is not in it, and why. */
export interface ArtifactNote {
  /** In CamelCase. */
  reason: string;
  /** For people, without what could steer their terminal: less than 1024 characters. */
  message: string;
}

/** What is to say of an archive of artifacts. */
export interface ArchiveSummary {
  files: number;
  /** Size of the archive; 0 when there is none. */
  bytes: number;
  /** Paths that match and can be in no archive. */
  skipped: number;
  /** A limit was reached: not all that matches is in it. */
  truncated: boolean;
  notes: readonly ArtifactNote[];
}

/** What became of a command. */
export type CommandOutcome =
  | { kind: 'done' }
  /** read, stop, delete: there is no such instance; the host was asked. */
  | { kind: 'gone' }
  /** resolve: the image's exact fingerprint, and where each source of a mount leads. */
  | { kind: 'resolved'; fingerprint: string; sources: Readonly<Record<string, string>> }
  /** launch: the operation that ends when the runner does. */
  | { kind: 'launched'; operation: string }
  /** probe: whether the guest can take a command. */
  | { kind: 'probed'; ready: boolean }
  | { kind: 'collected'; collected: Collected }
  /** Will not succeed however often it is tried: `reason` is CamelCase, `message` says what to change. */
  | { kind: 'refused'; reason: string; message: string }
  /** Did not happen, and may succeed another time. `reason` is CamelCase, where more is known than the command's verb. */
  | { kind: 'failed'; message: string; reason?: string }
  /** The answer was lost: it may have happened. Look again. */
  | { kind: 'unknown'; message: string };
