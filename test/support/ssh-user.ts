import { randomBytes } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, run, runOk } from './command.ts';
import type { IncusServer } from './incus-server.ts';

export interface SshUserOptions {
  /** The Incus server this user may use, in whichever way. */
  incus?: IncusServer;
  /** Member of incus-admin, whose members may open Incus's socket. Default: yes, when there is an Incus server. */
  incusGroup?: boolean;
  /** May run the one command of `via: Sudo` as root, and nothing else. Default: yes, when there is an Incus server. */
  sudo?: boolean;
}

/**
 * What the comment field of such a user begins with, and a line of its sudo rule holds: whoever clears up after a killed
 * run finds both by that.
 */
export const sshUserMark = 'cijob bench in ';

/**
 * A system user of the machine's, made for one test as an operator makes one for the controller: no password, no privileges
 * but the way to Incus.
 */
export class SshUser implements AsyncDisposable {
  readonly name: string;
  readonly #sudoers: string;

  private constructor(name: string) {
    this.name = name;
    this.#sudoers = join('/etc/sudoers.d', name);
  }

  /** @param dir the test's own directory; the home directory and the environment file go there */
  static async create(dir: string, options: SshUserOptions = {}): Promise<SshUser> {
    const { incus, incusGroup = incus !== undefined, sudo = incus !== undefined } = options;
    const user = new SshUser(`cijob-${randomBytes(4).toString('hex')}`);
    const home = join(dir, 'home');
    // `*` is a password nobody has; without one sshd calls the account locked and lets no key in.
    const account = [
      '--password',
      '*',
      '--shell',
      '/bin/sh',
      '--home-dir',
      home,
      '--create-home',
      '--no-user-group',
    ];
    const groups = incusGroup ? ['--groups', 'incus-admin'] : [];
    await runOk('useradd', [...account, ...groups, '--comment', `${sshUserMark}${dir}`, user.name]);
    try {
      if (sudo && incus) await user.#allowSudo(dir, incus);
    } catch (error) {
      await user.remove();
      throw error;
    }
    return user;
  }

  async #allowSudo(dir: string, incus: IncusServer): Promise<void> {
    // A colon separates words in sudoers.
    const command = `/usr/bin/socat STDIO UNIX-CONNECT\\:${incus.socketPath}`;
    const rules = [`# ${sshUserMark}${dir}`, `${this.name} ALL=(root) NOPASSWD: ${command}`];
    const draft = join(dir, 'sudoers');
    await writeFile(draft, `${rules.join('\n')}\n`, { mode: 0o440 });
    await runOk('visudo', ['--check', '--quiet', '--file', draft]);
    // Whole or not at all: half a file would lock everybody out of sudo.
    const placed = `${this.#sudoers}.new`;
    await runOk('install', ['--mode', '0440', draft, placed]);
    await rename(placed, this.#sudoers);
  }

  /** Removes the user and the sudo rule. */
  async remove(): Promise<void> {
    await rm(this.#sudoers, { force: true });
    const result = await run('userdel', ['--force', this.name]);
    // 6: there is no such user (any more).
    if (result.code !== 0 && result.code !== 6) throw new CommandError('userdel', [this.name], result);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }
}
