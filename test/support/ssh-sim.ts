import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import ssh2, {
  type AuthContext,
  type Connection,
  type ServerChannel,
  type Session,
  type SFTPWrapper,
} from 'ssh2';
import type { IncusSim } from './incus-sim/sim.ts';
import { serveSftp } from './ssh-sim-sftp.ts';

/** How the machine in front of a simulated Incus treats those who log in. May be changed at any time. */
export interface SshPolicy {
  /** The public key of {@link SshSim.privateKey} is not in authorized_keys. */
  refuseKey: boolean;
  /** `AllowStreamLocalForwarding no`. As with a socket that is not there, OpenSSH says no more than "open failed". */
  forbidForwarding: boolean;
  /** There is no SFTP subsystem. */
  noSftp: boolean;
  /** Who asks for a stream to be forwarded hears neither yes nor no, until {@link SshSim.answer} is called. */
  silent: boolean;
  /** sudo asks for a password. */
  sudoDenied: boolean;
  /** Sessions (commands and SFTP, not forwarded streams) that one connection may have at once, as in sshd_config. */
  maxSessions: number;
}

/** Runs a command line on its channel and says how it ended. `connect` opens the machine's Incus socket. */
export type SshCommand = (channel: ServerChannel, match: RegExpExecArray) => void;

export interface SshSimOptions {
  /** Where Incus's socket is on that machine. */
  socketPath?: string;
}

/** A machine with sshd and a simulated Incus behind it, in this process, on a loopback port of its own. */
export class SshSim {
  readonly incus: IncusSim;
  readonly socketPath: string;
  readonly policy: SshPolicy = {
    refuseKey: false,
    forbidForwarding: false,
    noSftp: false,
    silent: false,
    sudoDenied: false,
    maxSessions: 10,
  };
  /** A private key that may log in, as any user. */
  readonly privateKey: string;
  /** The public host key, as a line of known_hosts has it: type and base64. */
  readonly hostKey: string;
  /** The commands this machine knows: the first pattern that matches is run. Others are "command not found". */
  readonly commands: [pattern: RegExp, run: SshCommand][];
  /** How many connections were ever made. */
  accepted = 0;
  /** Most sessions that one connection has had at once. */
  peakSessions = 0;
  /** Sessions that were one too many. */
  refusedSessions = 0;
  readonly #publicKey: Buffer;
  readonly #server: ssh2.Server;
  readonly #clients = new Set<Connection>();
  readonly #unanswered: (() => void)[] = [];
  readonly #sftps = new Set<SFTPWrapper>();

  private constructor(incus: IncusSim, options: SshSimOptions) {
    this.incus = incus;
    this.socketPath = incus.host.socket(options.socketPath ?? '/var/lib/incus/unix.socket');
    const host = newKey();
    const user = newKey();
    this.hostKey = host.public.split(' ').slice(0, 2).join(' ');
    this.privateKey = user.private;
    this.#publicKey = Buffer.from(user.public.split(' ')[1] ?? '', 'base64');
    this.commands = [
      [
        /^sudo -n socat STDIO UNIX-CONNECT:(\S+)$/,
        (channel, [, path]) => this.#asRoot(channel, () => this.#bridge(channel, path ?? '')),
      ],
    ];
    this.#server = new ssh2.Server({ hostKeys: [host.private] }, (client) => this.#welcome(client));
  }

  static async start(incus: IncusSim, options: SshSimOptions = {}): Promise<SshSim> {
    const sim = new SshSim(incus, options);
    await new Promise<void>((resolve) => {
      sim.#server.listen(0, '127.0.0.1', resolve);
    });
    return sim;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#clients.size;
  }

  /** How many wait for {@link answer}. */
  get unanswered(): number {
    return this.#unanswered.length;
  }

  /** Answers what was asked while {@link SshPolicy.silent}. */
  answer(): void {
    for (const answer of this.#unanswered.splice(0)) answer();
  }

  /** Ends the processes that serve SFTP. Their connections go on. */
  killSftp(): void {
    for (const sftp of this.#sftps) sftp.end();
    this.#sftps.clear();
  }

  /** Cuts every connection at once, as a machine that crashes. */
  cut(): void {
    for (const client of this.#clients) socketOf(client).destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  #welcome(client: Connection): void {
    this.accepted += 1;
    this.#clients.add(client);
    // As OpenSSH does; with Nagle's algorithm each small exchange takes 40 ms.
    socketOf(client).setNoDelay(true);
    client.on('close', () => this.#clients.delete(client));
    client.on('error', () => undefined);
    client.on('authentication', (context) => this.#authenticate(context));
    let sessions = 0;
    client.on('session', (accept, reject) => {
      if (sessions >= this.policy.maxSessions) {
        this.refusedSessions += 1;
        reject();
        return;
      }
      sessions += 1;
      this.peakSessions = Math.max(this.peakSessions, sessions);
      const session = accept();
      session.on('close', () => (sessions -= 1));
      this.#serve(session);
    });
    // Typed as an event with no arguments; it has those of `tcpip`, with the path of the socket.
    const streams = client as unknown as {
      on(
        event: 'openssh.streamlocal',
        listener: (accept: () => ServerChannel, reject: () => void, info: { socketPath: string }) => void,
      ): void;
    };
    streams.on('openssh.streamlocal', (accept, reject, { socketPath }) => {
      const answer = () => {
        if (this.policy.forbidForwarding || this.#socketGone(socketPath)) reject();
        else forwardTo(accept(), this.incus.connect());
      };
      if (this.policy.silent) this.#unanswered.push(answer);
      else answer();
    });
  }

  #authenticate(context: AuthContext): void {
    const accepted =
      context.method === 'publickey' &&
      !this.policy.refuseKey &&
      context.key.algo === 'ssh-ed25519' &&
      context.key.data.equals(this.#publicKey) &&
      (context.signature === undefined || this.#signed(context));
    if (accepted) context.accept();
    else context.reject(['publickey']);
  }

  #signed(context: ssh2.PublicKeyAuthContext): boolean {
    const key = ssh2.utils.parseKey(this.privateKey);
    return (
      !(key instanceof Error) &&
      context.blob !== undefined &&
      key.verify(context.blob, context.signature ?? Buffer.alloc(0), context.hashAlgo)
    );
  }

  #serve(session: Session): void {
    session.on('exec', (accept, _reject, { command }) => {
      const channel = accept();
      channel.on('error', () => undefined);
      for (const [pattern, run] of this.commands) {
        const match = pattern.exec(command);
        if (!match) continue;
        run(channel, match);
        return;
      }
      end(channel, 127, `bash: line 1: ${command.split(' ')[0] ?? ''}: command not found\n`);
    });
    session.on('sftp', (accept, reject) => {
      if (this.policy.noSftp) {
        reject();
        return;
      }
      const sftp = accept();
      this.#sftps.add(sftp);
      serveSftp(sftp, this.incus.host);
    });
  }

  #asRoot(channel: ServerChannel, run: () => void): void {
    if (this.policy.sudoDenied) end(channel, 1, 'sudo: a password is required\n');
    else run();
  }

  #bridge(channel: ServerChannel, path: string): void {
    if (this.#socketGone(path)) {
      end(channel, 1, `socat[1] E connect(, AF=1 "${path}", 2): Connection refused\n`);
      return;
    }
    const incus = this.incus.connect();
    incus.once('close', () => end(channel, 0));
    join(channel, incus);
  }

  #socketGone(path: string): boolean {
    return this.incus.down || path !== this.socketPath || this.incus.host.lstat(path)?.kind !== 'socket';
  }
}

/** A new key pair, as ssh-keygen writes it. */
export function newKey(): { private: string; public: string } {
  for (;;) {
    const pair = ssh2.utils.generateKeyPairSync('ed25519');
    // Some three in a thousand of the keys that ssh2 1.17 makes it cannot read itself (measured).
    if (!(ssh2.utils.parseKey(pair.private) instanceof Error)) return pair;
  }
}

/** Ends a command with its code, and with something on stderr. */
export function end(channel: ServerChannel, code: number, stderr = ''): void {
  if (channel.destroyed) return;
  if (stderr !== '') channel.stderr.write(stderr);
  channel.exit(code);
  channel.end();
  channel.close();
}

/** As sshd forwards: when the other side closes, it says that nothing more comes, and waits for the client to close. */
function forwardTo(channel: ServerChannel, other: Duplex): void {
  other.pipe(channel, { end: false });
  channel.pipe(other);
  other.on('error', () => channel.eof());
  other.once('close', () => channel.eof());
  channel.on('error', () => other.destroy());
  channel.once('close', () => other.destroy());
}

function join(one: Duplex, other: Duplex): void {
  one.pipe(other).pipe(one);
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => to.destroy());
    from.once('close', () => to.destroy());
  }
}

/** The TCP socket below a connection, which ssh2 keeps to itself. */
function socketOf(client: Connection): Socket {
  return (client as unknown as { _sock: Socket })._sock;
}
