import { randomBytes } from 'node:crypto';
import { runOk, run } from './command.ts';

/**
 * An address of this machine that is no loopback address, as the API server proxies to none of those: one end of a
 * virtual cable. From the block for tests of network equipment (RFC 2544), which no real network has. Needs root.
 */
export class OwnAddress implements AsyncDisposable {
  readonly address: string;
  readonly #link: string;

  private constructor(address: string, link: string) {
    this.address = address;
    this.#link = link;
  }

  static async add(): Promise<OwnAddress> {
    // Drawn, as others on this machine may run the same test.
    const [high = 0, middle = 0, low = 0] = randomBytes(3);
    const link = `ca${randomBytes(3).toString('hex')}`;
    const address = `198.${18 + (high & 1)}.${middle}.${(low & 0xfc) + 1}`;
    await runOk('ip', ['link', 'add', `${link}a`, 'type', 'veth', 'peer', 'name', `${link}b`]);
    await runOk('ip', ['address', 'add', `${address}/32`, 'dev', `${link}a`]);
    await runOk('ip', ['link', 'set', `${link}a`, 'up']);
    return new OwnAddress(address, link);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The other end of the cable goes with it.
    await run('ip', ['link', 'delete', `${this.#link}a`]);
  }
}
