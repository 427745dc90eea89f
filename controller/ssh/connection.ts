import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import ssh2, { type ClientChannel, type ServerHostKeyAlgorithm, type SFTPWrapper } from 'ssh2';
import { ChannelStream } from './channel-stream.ts';
import { SshError } from './errors.ts';
import { algorithmsFor, isPinned, parseHostKey } from './host-keys.ts';

export interface SshOptions {
  address: string;
  port: number;
  user: string;
  /** Public host keys to accept; any other is refused. */
  hostKeys: readonly string[];
  /** Reads the private key (OpenSSH or PEM). Asked anew for each connection, so that a rotated key is taken up. */
  privateKey: () => Promise<string>;
  /** Gives up connecting. */
  signal?: AbortSignal | undefined;
}

const stderrKept = 1024;
/** How long a question may go unanswered on a connection that works, in milliseconds. */
const answerTimeout = 30_000;
/** How often the machine is asked for a sign of life, in milliseconds. */
const pingInterval = 5_000;
/** So many pings in a row without a single byte from the machine, and it has vanished. */
const pingsUnheard = 3;

/**
 * One connection to one machine, shared by everything that talks to it: OpenSSH lets few connections start at once
 * (MaxStartups) and few commands run on each (MaxSessions), but forwards any number of streams.
 */
export class SshConnection {
  readonly #client: ssh2.Client;
  readonly #closed: Promise<string>;
  /** How to fail the questions that a dead connection will never answer. */
  readonly #waiting = new Set<(error: Error) => void>();
  readonly #sftp: Promise<SFTPWrapper>;

  private constructor(client: ssh2.Client, closed: Promise<string>) {
    this.#client = client;
    this.#closed = closed;
    void closed.then((why) => {
      for (const reject of this.#waiting) reject(new SshError('Unreachable', why));
    });
    // Now, and not when it is first needed: sshd holds back small answers, each by up to 40 ms, until there has been a
    // session (Nagle's algorithm; measured on OpenSSH 9.2). Streams that are forwarded are none.
    this.#sftp = this.#openSftp();
    this.#sftp.catch(() => undefined);
  }

  /** Connects and logs in. Rejects with an {@link SshError} that says which of the two failed, and why. */
  static async open(options: SshOptions): Promise<SshConnection> {
    const where = `${options.user}@${options.address}:${options.port}`;
    const privateKey = await options.privateKey();
    const parsed = ssh2.utils.parseKey(privateKey);
    if (parsed instanceof Error) {
      throw new SshError('KeyUnusable', `the private key for ${where} cannot be read: ${parsed.message}`);
    }
    const pinned = options.hostKeys.map(parseHostKey);
    const client = new ssh2.Client();
    let refusedKey: Buffer | undefined;
    const ready = new Promise<void>((resolve, reject) => {
      client.once('ready', resolve);
      client.on('error', (error: Error & { level?: string }) => {
        reject(explain(error, where, refusedKey));
      });
    });
    let lastError = '';
    client.on('error', (error) => {
      lastError = error.message;
    });
    const closed = new Promise<string>((resolve) => {
      client.once('close', () => resolve(lastError === '' ? 'the connection was closed' : lastError));
    });
    // Requests are small and wait for each other: Nagle's algorithm would hold each up by 40 ms.
    const socket = connect({ host: options.address, port: options.port, noDelay: true });
    socket.setMaxListeners(0);
    watch(socket);
    const giveUp = () => socket.destroy();
    options.signal?.addEventListener('abort', giveUp);
    try {
      options.signal?.throwIfAborted();
      client.connect({
        sock: socket,
        username: options.user,
        privateKey,
        algorithms: { serverHostKey: algorithmsFor(pinned) as ServerHostKeyAlgorithm[] },
        hostVerifier: (key: Buffer) => {
          if (isPinned(pinned, key)) return true;
          refusedKey = key;
          return false;
        },
        // Asking is ssh2's part, deciding is ours: see `watch`.
        keepaliveInterval: pingInterval,
        keepaliveCountMax: Infinity,
        readyTimeout: 15_000,
      });
      await Promise.race([
        ready,
        closed.then((why) => {
          throw new SshError('Unreachable', `${where}: ${why}`);
        }),
      ]);
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', giveUp);
    }
    return new SshConnection(client, closed);
  }

  /** Resolves with the reason once the connection is gone. */
  get closed(): Promise<string> {
    return this.#closed;
  }

  /** Opens a stream to a unix socket of the machine. */
  forward(socketPath: string): Promise<Duplex> {
    return this.#guarded((resolve, reject) => {
      this.#client.openssh_forwardOutStreamLocal(socketPath, (error, channel) => {
        if (!error) resolve(new ChannelStream(channel));
        else this.#whyNotForwarded(socketPath).then(reject, reject);
      });
    }, closeStream);
  }

  /** Runs a command whose standard input and output are the stream. What it says on stderr ends up in the error. */
  run(command: string): Promise<Duplex> {
    return this.#guarded((resolve, reject) => {
      this.#client.exec(command, (error, channel) => {
        if (error) reject(new SshError('Unreachable', `"${command}" cannot be run: ${error.message}`));
        else resolve(withStderr(channel, command));
      });
    }, closeStream);
  }

  /**
   * Where a path leads after all symbolic links, and whether that is a directory; undefined if to nothing, or to
   * nothing that our user may see.
   */
  async resolve(path: string): Promise<{ path: string; directory: boolean } | undefined> {
    const sftp = await this.#sftp;
    return this.#guarded((resolve, reject) => {
      const failed = (error: Error & { code?: number }) => {
        const { NO_SUCH_FILE, PERMISSION_DENIED } = ssh2.utils.sftp.STATUS_CODE;
        if (error.code === NO_SUCH_FILE || error.code === PERMISSION_DENIED) resolve(undefined);
        else reject(new SshError('SftpUnavailable', `${path}: ${error.message}`));
      };
      sftp.realpath(path, (error, real) => {
        if (error) {
          failed(error);
          return;
        }
        sftp.stat(real, (statError, stats) => {
          if (statError) failed(statError);
          else resolve({ path: real, directory: stats.isDirectory() });
        });
      });
    });
  }

  /** Closes the connection, waiting for nothing. */
  close(): void {
    // Not `end` first: ssh2 destroys nothing that is ended, and the other side may be long in answering, or gone.
    this.#client.destroy();
  }

  /** sshd refuses a forward with one code, whatever the reason (measured on OpenSSH 9.2): a look at the path tells more. */
  async #whyNotForwarded(socketPath: string): Promise<SshError> {
    const found = await this.resolve(socketPath).catch(() => undefined);
    if (!found) {
      return new SshError('SocketUnavailable', `${socketPath} does not exist: is Incus running there?`);
    }
    return new SshError(
      'ForwardingForbidden',
      `sshd does not forward to ${socketPath}: it needs "AllowStreamLocalForwarding yes" and a user who may open the socket (group incus-admin); otherwise use via: Sudo`,
    );
  }

  #openSftp(): Promise<SFTPWrapper> {
    return this.#guarded((resolve, reject) => {
      this.#client.sftp((error, sftp) => {
        if (error) {
          reject(new SshError('SftpUnavailable', `sshd offers no SFTP: ${error.message}`));
          return;
        }
        // Its process over there may be killed. What the connection is then still good for is less than a new one.
        sftp.once('close', () => this.close());
        resolve(sftp);
      });
    });
  }

  /**
   * ssh2 throws at once on a closed client, and never answers when the connection dies meanwhile, nor when the machine does
   * not: a mount may lead to a file system whose server is gone.
   *
   * @param discard what to do with an answer that comes too late
   */
  #guarded<T>(
    ask: (resolve: (value: T) => void, reject: (error: Error) => void) => void,
    discard: (late: T) => void = () => undefined,
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let over = false;
    this.#waiting.add(reject);
    const timer = setTimeout(() => {
      reject(new SshError('Unreachable', `no answer within ${answerTimeout / 1000} s`));
    }, answerTimeout);
    try {
      ask((value) => (over ? discard(value) : resolve(value)), reject);
    } catch (error) {
      reject(new SshError('Unreachable', (error as Error).message, { cause: error }));
    }
    return promise.finally(() => {
      over = true;
      clearTimeout(timer);
      this.#waiting.delete(reject);
    });
  }
}

const closeStream = (stream: Duplex) => void stream.destroy();

/**
 * Gives up a connection over which nothing comes any more, not even an answer to a ping: a peer that vanished without
 * closing is noticed within 20 s. ssh2 itself counts unanswered pings, whatever else arrives; on a slow line, where the
 * answers queue behind a long list, it would cut a connection that works, and the next, and never get to the list's end.
 */
function watch(socket: Socket): void {
  let heard = 0;
  let silent = 0;
  const timer = setInterval(() => {
    silent = socket.bytesRead === heard ? silent + 1 : 0;
    heard = socket.bytesRead;
    if (silent < pingsUnheard) return;
    socket.destroy(new Error(`nothing was received for ${(pingInterval * pingsUnheard) / 1000} s`));
  }, pingInterval);
  // The socket itself keeps the process alive for as long as it is open.
  timer.unref();
  socket.once('close', () => clearInterval(timer));
}

/**
 * Lets a command's failure show as the stream's error. Its stderr is always read, because an unread one stops the
 * command once the channel's window is full.
 */
function withStderr(channel: ClientChannel, command: string): Duplex {
  const stream = new ChannelStream(channel);
  let said = '';
  channel.stderr.on('data', (chunk: Buffer) => {
    if (said.length < stderrKept) said += chunk.toString('utf8').slice(0, stderrKept);
  });
  channel.on('exit', (code: number | null) => {
    if (code === 0) return;
    stream.destroy(new SshError('SudoRefused', `"${command}": ${said.trim() || `exit code ${code}`}`));
  });
  return stream;
}

function explain(error: Error & { level?: string }, where: string, refusedKey: Buffer | undefined): SshError {
  if (refusedKey) {
    const shown = refusedKey.toString('base64');
    return new SshError(
      'HostKeyMismatch',
      `${where} shows a host key that is not pinned in spec.connection.ssh.hostKeys: …${shown.slice(-24)}`,
    );
  }
  if (error.level === 'client-authentication') {
    return new SshError(
      'KeyRefused',
      `${where} does not accept the private key: is its public half in authorized_keys?`,
    );
  }
  if (error.level === 'handshake') {
    return new SshError(
      'HostKeyMismatch',
      `${where}: no common ground in the handshake (does it have a host key of a pinned type?): ${error.message}`,
    );
  }
  return new SshError('Unreachable', `${where}: ${error.message}`, { cause: error });
}
