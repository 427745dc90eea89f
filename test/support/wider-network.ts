import { randomBytes } from 'node:crypto';
import { run, runOk, type CommandOptions, type CommandResult } from './command.ts';

/** Addresses beyond the host, as its guests may try them. */
export const beyond = {
  /** From the block for documentation (RFC 5737): to Incus's rules an address of the internet. */
  internet: '203.0.113.2',
  privately: '10.200.0.2',
  alsoPrivately: '192.168.200.2',
  /** Where clouds serve a machine's credentials. */
  metadata: '169.254.169.254',
};
/** The host's own addresses on the way there, the first one public. */
/** The same of IPv6, by the blocks for documentation and for private networks. */
export const beyond6 = { internet: '2001:db8:1::2', privately: 'fd77::2' };
export const ownAddresses6 = ['2001:db8:1::1', 'fd77::1'];
export const ownAddresses = ['203.0.113.1', '10.200.0.1', '192.168.200.1', '169.254.169.1'];

/**
 * A host's network, and what is beyond it, in two network namespaces with a virtual cable between them: nothing here
 * touches the machine's own network, or is sent to it. Needs root.
 */
export class WiderNetwork implements AsyncDisposable {
  /** The namespace of the host. */
  readonly host = `cj${randomBytes(3).toString('hex')}`;
  readonly #far = `${this.host}f`;
  /** The host's end of the cable: an interface that no Incus manages. */
  readonly cable = 'far0';

  static async start(): Promise<WiderNetwork> {
    const network = new WiderNetwork();
    const { host, cable } = network;
    const far = network.#far;
    for (const name of [host, far]) {
      await runOk('ip', ['netns', 'add', name]);
      await runOk('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
    }
    await runOk('ip', [
      ...['-n', host, 'link', 'add', cable, 'type', 'veth'],
      ...['peer', 'name', 'near0', 'netns', far],
    ]);
    const add = (namespace: string, address: string, device: string) => {
      // No time is lost on looking whether another has it.
      const how = address.includes(':') ? [`${address}/64`, 'nodad'] : [`${address}/24`];
      return runOk('ip', ['-n', namespace, 'address', 'add', ...how, 'dev', device]);
    };
    for (const address of [...ownAddresses, ...ownAddresses6]) await add(host, address, cable);
    for (const address of [...Object.values(beyond), ...Object.values(beyond6)])
      await add(far, address, 'near0');
    await runOk('ip', ['-n', host, 'link', 'set', cable, 'up']);
    await runOk('ip', ['-n', far, 'link', 'set', 'near0', 'up']);
    return network;
  }

  /** Runs a program on the host's network, whatever comes of it. */
  run(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return run('ip', ['netns', 'exec', this.host, ...command], options);
  }

  /** The host's rules for packets. */
  async rules(): Promise<string> {
    return (await this.run(['nft', 'list', 'ruleset'])).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [this.host, this.#far]) await run('ip', ['netns', 'delete', name]);
  }
}
