import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Daemon } from './daemon.ts';
import { IncusServer } from './incus-server.ts';
import { clearAway } from './left-under.ts';
import { makeTempDir } from './temp-dir.ts';

/** Where packages put the daemon: Debian's, then the Incus project's own. */
const places = [
  '/usr/libexec/incus/incusd',
  '/usr/lib/incus/incusd',
  '/opt/incus/bin/incusd',
  '/usr/bin/incusd',
];

/** The Debian packages that hold what `startIncusd` starts. */
export const incusPackages = ['incus-base', 'incus-client'];

/** The Debian packages for networks of guests. */
export const guestNetworkPackages = ['dnsmasq-base', 'iproute2', 'nftables'];

/** The Debian package for a storage pool that holds instances to their size. */
export const quotaPackages = ['btrfs-progs'];

/**
 * A real incusd with a directory of its own: it shares nothing with another Incus on the machine. It has one storage
 * pool, `default`, of plain directories, and no network: guests have no card.
 */
export class Incusd extends IncusServer implements AsyncDisposable {
  readonly #daemon: Daemon;
  /** Holds INCUS_DIR, the client's directory and the log. */
  readonly #base: string;

  private constructor(base: string, daemon: Daemon) {
    super(join(base, 'd'));
    this.#base = base;
    this.#daemon = daemon;
  }

  /** @param within a network namespace of the machine to live in, with all its guests. Default: the machine's own. */
  static async start(within?: string): Promise<Incusd> {
    const base = await makeTempDir('incus');
    const server = new IncusServer(join(base, 'd'));
    try {
      await mkdir(server.env.INCUS_CONF);
      const incusd = places.find((path) => existsSync(path)) ?? 'incusd';
      // The group decides who may open the socket; Debian's package makes it.
      const command = [incusd, '--group', 'incus-admin'];
      const [file = '', ...args] =
        within === undefined ? command : ['ip', 'netns', 'exec', within, ...command];
      const daemon = await Daemon.start({
        name: 'incusd',
        file,
        args,
        env: {
          INCUS_DIR: server.dir,
          // At its start incusd asks the image server for its list of instance types. A test sends nothing anywhere:
          // port 9 of this machine refuses at once.
          HTTPS_PROXY: 'http://127.0.0.1:9',
          HTTP_PROXY: 'http://127.0.0.1:9',
        },
        logFile: join(base, 'incusd.log'),
        isReady: async () =>
          existsSync(server.socketPath) && (await server.incus(['query', '/1.0'])).code === 0,
      });
      const made = new Incusd(base, daemon);
      await server.incusOk(['storage', 'create', 'default', 'dir']);
      await server.addRootDisk('default');
      return made;
    } catch (error) {
      await clearAway(base);
      throw error;
    }
  }

  get pid(): number {
    return this.#daemon.pid;
  }

  /** The end of the daemon's log. */
  lastLines(count?: number): string {
    return this.#daemon.lastLines(count);
  }

  /** A crash: the daemon is gone at once. Running containers go on, as on a real host. */
  async kill9(): Promise<void> {
    await this.#daemon.kill9();
  }

  /** Ends the daemon as an upgrade does. Running containers go on. */
  async halt(): Promise<void> {
    await this.#daemon.stop();
  }

  /** Starts the daemon again after `kill9` or `halt`, and waits until it answers. */
  async restart(): Promise<void> {
    await this.#daemon.stop();
    await this.#daemon.start();
  }

  /** Removes all instances and every trace of the server. */
  async stop(): Promise<void> {
    // In order where it can be. Whatever a test broke so that Incus cannot remove it goes with the directory.
    if (this.#daemon.running) await this.deleteInstances().catch(() => undefined);
    await this.#daemon.stop();
    await clearAway(this.#base);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
