import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { run, runOk, type CommandOptions, type CommandResult } from './command.ts';
import { Daemon } from './daemon.ts';
import { freePort } from './free-port.ts';
import { clearAway } from './left-under.ts';
import { SshUser, type SshUserOptions } from './ssh-user.ts';
import { makeTempDir } from './temp-dir.ts';

/** Settings of sshd_config by their own names: `AllowStreamLocalForwarding`, `MaxSessions`, … */
export type SshdSettings = Record<string, string>;

export interface SshdOptions extends SshUserOptions {
  /** On top of the defaults, or instead of them. */
  settings?: SshdSettings;
}

/** The Debian packages that hold what `Sshd` and `SshUser` use. */
export const sshPackages = ['openssh-server', 'openssh-client', 'sudo', 'socat'];

/**
 * A real OpenSSH server on loopback, with a host key, a client key and a user of its own. The user logs in by key only;
 * what it may do is told by SshUser. What can go wrong with a host's SSH can be done to it.
 */
export class Sshd implements AsyncDisposable {
  readonly address = '127.0.0.1';
  readonly port: number;
  readonly user: string;
  /** The path of the private key that is let in now; `rotateClientKey` replaces the file. */
  readonly privateKeyFile: string;
  readonly #dir: string;
  readonly #account: SshUser;
  readonly #daemon: Daemon;

  private constructor(dir: string, port: number, account: SshUser, daemon: Daemon) {
    this.#dir = dir;
    this.#account = account;
    this.#daemon = daemon;
    this.port = port;
    this.user = account.name;
    this.privateKeyFile = join(dir, 'client_key');
  }

  static async start(options: SshdOptions = {}): Promise<Sshd> {
    const dir = await makeTempDir('ssh');
    let account: SshUser | undefined;
    try {
      account = await SshUser.create(dir, options);
      const port = await freePort();
      await makeKey(join(dir, 'host_key'));
      await makeKey(join(dir, 'client_key'));
      await authorizeClientKey(dir);
      await writeConfig(dir, port, account.name, options.settings ?? {});
      // Where sshd separates its privileges; a machine without systemd makes it nowhere else.
      await mkdir('/run/sshd', { recursive: true, mode: 0o755 });
      const daemon = await Daemon.start({
        name: 'sshd',
        // sshd starts itself again for each connection and wants its whole path for that.
        file: '/usr/sbin/sshd',
        args: ['-D', '-e', '-f', join(dir, 'sshd_config')],
        logFile: join(dir, 'sshd.log'),
        isReady: () => answersAsSsh(port),
      });
      return new Sshd(dir, port, account, daemon);
    } catch (error) {
      await account?.remove();
      await clearAway(dir);
      throw error;
    }
  }

  /** The server's public key as an IncusHost pins it: "ssh-ed25519 AAAA…". */
  async hostKey(): Promise<string> {
    return publicKey(join(this.#dir, 'host_key'));
  }

  /** The text of the private key that is let in now. */
  async privateKey(): Promise<string> {
    return readFile(this.privateKeyFile, 'utf8');
  }

  /** A new host key, as after a machine was installed anew. Connections that stand are not touched. */
  async rotateHostKey(): Promise<void> {
    await makeKey(join(this.#dir, 'host_key'));
    await this.restart();
  }

  /** A new client key, and only that is let in from now on. Connections that stand are not touched. */
  async rotateClientKey(): Promise<void> {
    await makeKey(this.privateKeyFile);
    await authorizeClientKey(this.#dir);
  }

  /** Other settings, for connections made from now on. */
  async reconfigure(settings: SshdSettings): Promise<void> {
    await writeConfig(this.#dir, this.port, this.user, settings);
    await this.restart();
  }

  /** Cuts every connection without a goodbye. New ones are taken. Returns how many there were. */
  async cutConnections(): Promise<number> {
    const sessions = await this.#signalSessions('SIGKILL');
    // Each connection is two processes: root's, and the user's.
    return Math.ceil(sessions / 2);
  }

  /** Kills what serves SFTP, as the machine may that runs out of memory. Connections go on. Returns how many it was. */
  async killSftp(): Promise<number> {
    const pids = await descendants(this.#daemon.pid, 'sshd');
    const commands = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8')));
    const serving = pids.filter((_, index) => commands[index]?.includes('internal-sftp'));
    for (const pid of serving) process.kill(pid, 'SIGKILL');
    return serving.length;
  }

  /** Every connection falls silent, without being closed: what is sent waits, and comes when they are thawed. */
  async freezeConnections(): Promise<void> {
    await this.#signalSessions('SIGSTOP');
  }

  /** Lets frozen connections go on. */
  async thawConnections(): Promise<void> {
    await this.#signalSessions('SIGCONT');
  }

  /** Signals the processes of every connection, and returns how many there were. */
  async #signalSessions(signal: NodeJS.Signals): Promise<number> {
    const sessions = await descendants(this.#daemon.pid, 'sshd');
    for (const pid of sessions) {
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended meanwhile.
      }
    }
    return sessions.length;
  }

  /** The host is away: nothing listens, and what stood is cut. */
  async halt(): Promise<void> {
    if (!this.#daemon.running) return;
    await this.cutConnections();
    await this.#daemon.kill9();
  }

  /** Listens (again) on the same port. Connections that stand are not touched. */
  async restart(): Promise<void> {
    await this.#daemon.stop();
    await this.#daemon.start();
  }

  /** Runs a command through the OpenSSH client, as its user does by hand. */
  async ssh(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    const knownHosts = join(this.#dir, 'known_hosts');
    await writeFile(knownHosts, `[${this.address}]:${this.port} ${await this.hostKey()}\n`);
    const settings = ['BatchMode=yes', 'StrictHostKeyChecking=yes', `UserKnownHostsFile=${knownHosts}`];
    const to = [
      '-F',
      'none',
      '-i',
      this.privateKeyFile,
      '-p',
      String(this.port),
      '-l',
      this.user,
      this.address,
    ];
    return run('ssh', [...settings.flatMap((setting) => ['-o', setting]), ...to, ...args], options);
  }

  /** The end of the server's log: logins, refusals and their reasons. */
  lastLines(count?: number): string {
    return this.#daemon.lastLines(count);
  }

  /** Ends it, cuts all connections, removes the user and every trace. */
  async stop(): Promise<void> {
    await this.halt();
    // What the user's sessions left running goes before the user.
    await clearAway(this.#dir);
    await this.#account.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Writes a new ed25519 key pair, in place of the one that was there. */
async function makeKey(file: string): Promise<void> {
  await rm(file, { force: true });
  await rm(`${file}.pub`, { force: true });
  await runOk('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'bench', '-f', file]);
}

async function publicKey(file: string): Promise<string> {
  return (await readFile(`${file}.pub`, 'utf8')).split(' ').slice(0, 2).join(' ');
}

async function authorizeClientKey(dir: string): Promise<void> {
  await writeFile(join(dir, 'authorized_keys'), `${await publicKey(join(dir, 'client_key'))}\n`);
}

async function writeConfig(dir: string, port: number, user: string, settings: SshdSettings): Promise<void> {
  const all = {
    Port: String(port),
    ListenAddress: '127.0.0.1',
    HostKey: join(dir, 'host_key'),
    AuthorizedKeysFile: join(dir, 'authorized_keys'),
    AllowUsers: user,
    PasswordAuthentication: 'no',
    KbdInteractiveAuthentication: 'no',
    PidFile: 'none',
    // The directory belongs to root, not to the user: fine for a bench, refused by the strict check.
    StrictModes: 'no',
    UsePAM: 'no',
    UseDNS: 'no',
    Subsystem: 'sftp internal-sftp',
    LogLevel: 'VERBOSE',
    ...settings,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name} ${value}\n`);
  await writeFile(join(dir, 'sshd_config'), lines.join(''));
}

function answersAsSsh(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('error', reject);
    socket.once('data', (banner) => {
      socket.destroy();
      resolve(banner.toString('latin1').startsWith('SSH-2.0-'));
    });
  });
}

/** Process ids of the children, their children and so on, that run a program of that name. */
async function descendants(parent: number, program: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')));
  const table = stats.flatMap((stat) => {
    // The name stands in brackets and may hold anything; the parent is the second field after it.
    const match = /^(\d+) \((.*)\) \S (\d+) /s.exec(stat);
    return match ? [{ pid: Number(match[1]), name: match[2], parent: Number(match[3]) }] : [];
  });
  const below = (pid: number): number[] =>
    table
      .filter((row) => row.parent === pid && row.name === program)
      .flatMap((row) => [row.pid, ...below(row.pid)]);
  return below(parent);
}
