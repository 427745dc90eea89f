import { realpath, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import type { IncusHostSpec } from '../api/incushost.ts';
import { SshConnection } from '../ssh/connection.ts';
import { SshError } from '../ssh/errors.ts';

/** How much may go on at once over one link. */
export interface LinkCapacity {
  /** Streams that may be open for requests that Incus itself answers. */
  maxRequests: number;
  /** Streams that may be open, beside those, for what is read from guests. */
  maxReads: number;
  /** Logs that may be followed, each by streams of its own. */
  maxLogs: number;
  /** Archives that may be made, each by one request after the other. */
  maxArchives: number;
}

/** A way to one machine: streams to its Incus, and a look at its file system. */
export interface Link {
  /** Opens a stream to Incus's unix socket. */
  dial(): Promise<Duplex>;
  /** Where a path leads after all symbolic links; undefined if to nothing, or to nothing that our user may see. */
  resolve(path: string): Promise<{ path: string; directory: boolean } | undefined>;
  /** Resolves with the reason once the link is gone. Never, for the local machine. */
  readonly closed: Promise<string>;
  close(): void;
  readonly capacity: LinkCapacity;
}

/** Reads the private key that an IncusHost names. */
export type ReadKey = (reference: { name: string; key: string }) => Promise<string>;

/**
 * Opens the link that an IncusHost describes. Rejects with an {@link SshError}.
 *
 * @param signal gives up connecting.
 */
export async function openLink(
  connection: IncusHostSpec['connection'],
  readKey: ReadKey,
  signal?: AbortSignal,
): Promise<Link> {
  const { ssh, local } = connection;
  if (local) return localLink(local.socketPath);
  if (!ssh) throw new SshError('Unreachable', 'the IncusHost names no connection');
  const opened = await SshConnection.open({
    ...ssh,
    privateKey: () => readKey(ssh.privateKeySecretRef),
    signal,
  });
  const viaSocket = ssh.via === 'Socket';
  return {
    dial: () => (viaSocket ? opened.forward(ssh.socketPath) : opened.run(sudoBridge(ssh.socketPath))),
    resolve: (path) => opened.resolve(path),
    closed: opened.closed,
    close: () => opened.close(),
    capacity: viaSocket ? plenty : sessionsFor(ssh.maxSessions),
  };
}

/** Streams that are forwarded cost nothing. Archives are compressed here, by the four threads that Node has for that. */
const plenty: LinkCapacity = {
  maxRequests: 64,
  maxReads: 32,
  maxLogs: Number.POSITIVE_INFINITY,
  maxArchives: 4,
};

/**
 * Through sudo each stream is a session. One is kept for the event stream, one for SFTP, and one for what has been closed
 * and is not yet gone. Requests come first: a log takes three, and what is read from guests takes at most half of the
 * rest, so that no request waits for guests that answer slowly; who of these waits for whom is in incus/fair-queue.ts.
 */
export function sessionsFor(maxSessions: number): LinkCapacity {
  const free = maxSessions - 3;
  const maxLogs = Math.floor((free - 4) / 3);
  const streams = free - 3 * maxLogs;
  const maxReads = Math.floor(streams / 2);
  return { maxRequests: streams - maxReads, maxReads, maxLogs, maxArchives: maxReads };
}

/**
 * The one command that `via: Sudo` needs in sudoers. It carries the same requests over the same socket: unlike
 * `incus query`, whose request body is an argument that every process of the host can read, it shows nothing of a job.
 */
export function sudoBridge(socketPath: string): string {
  return `sudo -n socat STDIO UNIX-CONNECT:${socketPath}`;
}

/** Errors that say of the path, and not of the file system, that it leads to nothing that we may see. */
const unseen: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP', 'ENAMETOOLONG']);

function localLink(socketPath: string): Link {
  return {
    dial: () =>
      new Promise((resolve, reject) => {
        const socket = connect(socketPath, () => resolve(socket));
        socket.once('error', (error) => {
          reject(
            new SshError(
              'SocketUnavailable',
              `${socketPath} cannot be opened: is Incus running, and are you in the group incus-admin? (${error.message})`,
            ),
          );
        });
      }),
    async resolve(path) {
      try {
        const real = await realpath(path);
        return { path: real, directory: (await stat(real)).isDirectory() };
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== undefined && unseen.has(code)) return undefined;
        throw error;
      }
    },
    closed: new Promise(() => undefined),
    close: () => undefined,
    capacity: plenty,
  };
}
