import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { runOk, run } from './command.ts';
import { Daemon } from './daemon.ts';
import { makeTempDir } from './temp-dir.ts';
import { clearAway } from './left-under.ts';

/** The Debian packages that hold what a {@link NetworkNamespace} uses. */
export const networkPackages = ['iproute2', 'socat'];

/** A hardware address that nobody has. */
const nowhere = '02:00:00:00:00:fe';

/**
 * A TCP port of this machine, reached through a network of its own: two ends of a virtual cable, one of them in a
 * network namespace. What is sent over the cable can be lost as on a broken line: neither side is told. Needs root.
 */
export class NetworkNamespace implements AsyncDisposable {
  /** Address and port that lead over the cable. */
  readonly address: string;
  readonly port = 2222;
  readonly #name: string;
  readonly #dir: string;
  readonly #daemons: readonly Daemon[];
  readonly #near: string;

  private constructor(name: string, dir: string, addresses: [near: string, far: string], daemons: Daemon[]) {
    this.#name = name;
    this.#dir = dir;
    this.#daemons = daemons;
    [this.#near, this.address] = addresses;
  }

  /** @param port the port of 127.0.0.1 to which the far end leads. */
  static async start(port: number): Promise<NetworkNamespace> {
    const dir = await makeTempDir('net');
    const name = `cj${randomBytes(3).toString('hex')}`;
    const [near, far] = someAddresses();
    const inside = ['netns', 'exec', name];
    await runOk('ip', ['netns', 'add', name]);
    await runOk('ip', ['link', 'add', `${name}a`, 'type', 'veth', 'peer', 'name', `${name}b`, 'netns', name]);
    await runOk('ip', ['address', 'add', `${near}/30`, 'dev', `${name}a`]);
    await runOk('ip', ['link', 'set', `${name}a`, 'up']);
    await runOk('ip', [...inside, 'ip', 'address', 'add', `${far}/30`, 'dev', `${name}b`]);
    await runOk('ip', [...inside, 'ip', 'link', 'set', `${name}b`, 'up']);
    // A unix socket is no part of any network: it leads out of the namespace again.
    const socket = join(dir, 'out');
    const bridge = (what: string, file: string, args: string[]) =>
      Daemon.start({
        name: what,
        file,
        args,
        logFile: join(dir, `${what}.log`),
        isReady: () => Promise.resolve(true),
      });
    const daemons = [
      await bridge('out', 'socat', [`UNIX-LISTEN:${socket},fork`, `TCP:127.0.0.1:${port}`]),
      await bridge('in', 'ip', [
        ...inside,
        'socat',
        'TCP-LISTEN:2222,fork,nodelay',
        `UNIX-CONNECT:${socket}`,
      ]),
    ];
    return new NetworkNamespace(name, dir, [near, far], daemons);
  }

  /** From now on every packet is lost, both ways, and no connection is closed. */
  async drop(): Promise<void> {
    await this.#neighbours('replace', ['lladdr', nowhere, 'nud', 'permanent']);
  }

  /** Everything gets through again. */
  async heal(): Promise<void> {
    await this.#neighbours('del', []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.#daemons) await daemon.kill9();
    await clearAway(this.#dir);
    // The near end of the cable goes with the far one.
    await run('ip', ['netns', 'delete', this.#name]);
  }

  /** Each end believes that the other is somewhere else, or learns again where it is. */
  async #neighbours(verb: string, how: string[]): Promise<void> {
    const [name, far] = [this.#name, this.address];
    await runOk('ip', ['neighbour', verb, far, ...how, 'dev', `${name}a`]);
    const inside = ['netns', 'exec', name, 'ip', 'neighbour', verb, this.#near];
    await runOk('ip', [...inside, ...how, 'dev', `${name}b`]);
  }
}

/**
 * Two addresses of a network of four, from the block for tests of network equipment (RFC 2544), which no real network
 * has: nothing is ever sent beyond the cable. Drawn, as others on this machine may run the same test.
 */
function someAddresses(): [near: string, far: string] {
  const [high = 0, middle = 0, low = 0] = randomBytes(3);
  const network = `198.${18 + (high & 1)}.${middle}`;
  return [`${network}.${(low & 0xfc) + 1}`, `${network}.${(low & 0xfc) + 2}`];
}
