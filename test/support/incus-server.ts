import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { z } from 'zod';
import { run, runOk, CommandError, type CommandOptions, type CommandResult } from './command.ts';

/** A device or configuration map of Incus: strings only. */
type Settings = Record<string, string>;

const Answer = z.object({ metadata: z.unknown(), error: z.string().optional() });

/** An operation that has ended, or was begun. An exec has its code there, also when 126 or 127 makes it a failure. */
export const Operation = z.object({
  id: z.string(),
  metadata: z
    .object({ return: z.int().optional(), output: z.record(z.string(), z.string()).optional() })
    .nullable(),
});

/**
 * An Incus server of the bench, as an operator sees it: through the real `incus` client and its unix socket. It holds
 * no process, only a path, so that test workers can use a server that another process started.
 */
export class IncusServer {
  /** The server's INCUS_DIR. */
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  get socketPath(): string {
    return join(this.dir, 'unix.socket');
  }

  /** What the `incus` client needs in its environment to speak to this server, and to leave the user's own files be. */
  get env(): { INCUS_DIR: string; INCUS_CONF: string } {
    return { INCUS_DIR: this.dir, INCUS_CONF: `${this.dir}-client` };
  }

  /** Runs `incus …` against this server, whatever it answers. */
  incus(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return run('incus', args, { ...options, env: { ...options.env, ...this.env } });
  }

  /** Runs `incus …` and returns its standard output. Throws a CommandError when it fails. */
  incusOk(args: readonly string[], options: CommandOptions = {}): Promise<string> {
    return runOk('incus', args, { ...options, env: { ...options.env, ...this.env } });
  }

  /** The metadata of a GET's answer. */
  query(path: string): Promise<unknown> {
    return this.ask('GET', path);
  }

  /**
   * One request over the socket: the metadata of its answer. For what the client cannot do: it takes a body as an
   * argument, and no argument is longer than 128 KiB.
   */
  async ask(method: string, path: string, body?: object): Promise<unknown> {
    const { metadata, error } = Answer.parse(JSON.parse(await this.#request(method, path, body)));
    // A command that ends with 126 or 127 fails its operation, and still has its code there.
    if (error && !Operation.safeParse(metadata).data?.metadata) throw new Error(`${path}: ${error}`);
    return metadata;
  }

  /**
   * Runs a command in an instance as root, and tells how it ended. Rejects where Incus cannot run it.
   *
   * Not by `incus exec`: on a busy machine its client (6.0.4) now and then prints nothing of what the command said
   * (measured: 11 of 500 times). Here the command writes to files on the host, as Incus records it.
   */
  async exec(project: string, instance: string, command: readonly string[]): Promise<CommandResult> {
    const how = { 'record-output': true, 'wait-for-websocket': false, interactive: false };
    const inProject = `project=${project}`;
    const path = `/1.0/instances/${instance}/exec?${inProject}`;
    const { id } = Operation.parse(await this.ask('POST', path, { command, ...how }));
    const { metadata } = Operation.parse(await this.ask('GET', `/1.0/operations/${id}/wait?timeout=120`));
    const { return: code, output } = metadata ?? {};
    if (code === undefined || !output) throw new Error(`${command.join(' ')}: no end of it within 120 s`);
    const [stdout = '', stderr = ''] = await Promise.all(
      ['1', '2'].map((stream) => this.#request('GET', `${output[stream] ?? ''}?${inProject}`)),
    );
    return { stdout, stderr, code, signal: null };
  }

  /**
   * What a regular file of an instance holds; an error of Incus's where there is none. Takes no process in the guest: to
   * start one fails now and then on a busy machine ("Failed to retrieve PID of executing child process", 6.0.4).
   */
  readFile(project: string, instance: string, path: string): Promise<string> {
    return this.#request('GET', `/1.0/instances/${instance}/files?project=${project}&path=${path}`);
  }

  /** As `exec`, but an exit code other than 0 is a CommandError. Returns what the command printed. */
  async execOk(project: string, instance: string, command: readonly string[]): Promise<string> {
    const result = await this.exec(project, instance, command);
    if (result.code !== 0) throw new CommandError(command[0] ?? '', command.slice(1), result);
    return result.stdout;
  }

  /**
   * A project as docs describe it for real hosts: guests may mount host directories, but only those below
   * `allowedPaths`, which Incus itself enforces at each start of an instance, symbolic links followed.
   *
   * `restricted=true` forbids nearly everything by default: privileged containers, nesting, raw configuration, any
   * device but the root disk and the pool's volumes. Disks by host path are then allowed again, below the given paths
   * only. Exec, files, `limits.*`, `user.*` and `boot.autostart` need nothing more. Images are the default project's
   * (`features.images=false`); profiles are the project's own, so that nobody widens it by a profile of another one.
   *
   * Measured on Incus 6.0.4: under `restricted.devices.disk.paths` Incus refuses `shift=true` at start. A container
   * then sees the files as nobody's, by their permissions for others: sources must be readable by everyone.
   */
  async createRestrictedProject(name: string, allowedPaths: readonly string[]): Promise<void> {
    const config: Settings = {
      'features.images': 'false',
      'features.profiles': 'true',
      restricted: 'true',
      'restricted.devices.disk': 'allow',
      'restricted.devices.disk.paths': allowedPaths.join(','),
    };
    const flags = Object.entries(config).flatMap(([key, value]) => ['--config', `${key}=${value}`]);
    await this.incusOk(['project', 'create', name, ...flags]);
    await this.addRootDisk(name);
  }

  /** Gives the default profile of a project its root disk, without which no instance can be made. */
  async addRootDisk(project: string): Promise<void> {
    const device = ['default', 'root', 'disk', 'path=/', 'pool=default'];
    await this.incusOk(['profile', 'device', 'add', ...device, '--project', project]);
  }

  /** Removes a project with everything in it. Instances are stopped hard. */
  async deleteProject(name: string): Promise<void> {
    await this.deleteInstances(name);
    await this.incusOk(['project', 'delete', name, '--force'], { input: 'yes\n' });
  }

  /** Imports an image tarball (metadata.yaml and rootfs/) and returns its fingerprint. */
  async importImage(tarball: string, alias: string): Promise<string> {
    await this.incusOk(['image', 'import', tarball, '--alias', alias], { timeoutMs: 300_000 });
    const image = (await this.query(`/1.0/images/aliases/${encodeURIComponent(alias)}`)) as {
      target: string;
    };
    return image.target;
  }

  /** The names of a project's instances, or of all projects' (`project/name`). */
  async instances(project?: string): Promise<string[]> {
    const which = project === undefined ? ['--all-projects'] : ['--project', project];
    const list = JSON.parse(await this.incusOk(['list', '--format', 'json', ...which])) as {
      name: string;
      project: string;
    }[];
    return list.map((instance) =>
      project === undefined ? `${instance.project}/${instance.name}` : instance.name,
    );
  }

  /** Stops and removes instances of one project, or of all. One that another removes at the same time is no error. */
  async deleteInstances(project?: string): Promise<void> {
    const projects = project === undefined ? await this.#projects() : [project];
    for (const each of projects) {
      const names = await this.instances(each);
      if (names.length === 0) continue;
      const args = ['delete', '--force', '--project', each, ...names];
      const result = await this.incus(args);
      if (result.code !== 0 && (await this.instances(each)).length > 0) {
        throw new CommandError('incus', args, result);
      }
    }
  }

  #request(method: string, path: string, body?: object): Promise<string> {
    return new Promise((resolve, reject) => {
      const sent = request({ socketPath: this.socketPath, method, path }, (response) => {
        text(response).then(resolve, reject);
      });
      sent.once('error', reject).end(body && JSON.stringify(body));
    });
  }

  async #projects(): Promise<string[]> {
    const urls = (await this.query('/1.0/projects')) as string[];
    return urls.map((url) => decodeURIComponent(url.split('/').at(-1) ?? ''));
  }
}
