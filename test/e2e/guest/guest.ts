import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import {
  environmentFile,
  environmentFilePath,
  environmentFileVariable,
} from '../../../controller/incus/environment-file.ts';
import type { CommandResult } from '../../support/command.ts';
import type { GuestKind } from '../../support/guest-image.ts';
import { Operation, type IncusServer } from '../../support/incus-server.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { guestAliases } from '../support/shared-incus.ts';

/** What a controller asks of the runner. */
export interface Request {
  command?: string;
  timeoutSeconds?: number | string;
  asRoot?: boolean | string;
  /** Further parameters of the runner, in the environment of the exec. */
  parameters?: Record<string, string>;
  /** The job's variables, which go by the file. */
  environment?: Record<string, string | Buffer>;
}

/** result.json, to the letter of docs/guest-contract.md: a member too many fails. */
export const Result = z.strictObject({
  schema_version: z.literal(1),
  status: z.enum(['passed', 'failed']),
  exit_code: z.int().min(0).max(255),
  started_at: z.iso.datetime(),
  finished_at: z.iso.datetime(),
  message: z.string().min(1),
  timed_out: z.boolean(),
  oom_killed: z.literal(true).optional(),
  bootstrap_error: z.string().min(1).optional(),
});
export type Result = z.infer<typeof Result>;

/** How a run ended, as a controller gets to know it. */
export interface Ended {
  /** The exec's own return code. */
  code: number | undefined;
  result: Result;
  log: string;
}

export const allKinds: readonly GuestKind[] = ['busybox', 'systemd'];
const bash = '/run/current-system/sw/bin/bash';
const runner = '/run/current-system/sw/bin/pikaci-incus-run';

/** A container made from one of the test images, and the runner in it, spoken to as a controller does. */
export class Guest implements AsyncDisposable {
  readonly incus: IncusServer;
  readonly project: string;
  readonly name: string;

  private constructor(incus: IncusServer, project: string, name: string) {
    this.incus = incus;
    this.project = project;
    this.name = name;
  }

  /** @param mounts guest path -> host directory, mounted read-only. */
  static async launch(
    { incus, project }: { incus: IncusServer; project: string },
    kind: GuestKind,
    mounts: Readonly<Record<string, string>> = {},
  ): Promise<Guest> {
    const guest = new Guest(incus, project, `g-${kind}-${randomBytes(3).toString('hex')}`);
    const devices = Object.entries(mounts).map(([path, source], index) => [
      `pikaci-${index}`,
      { type: 'disk', source, path, readonly: 'true' },
    ]);
    const source = { type: 'image', alias: guestAliases[kind] };
    const body = { name: guest.name, source, start: true, devices: Object.fromEntries(devices) as object };
    const { id } = Operation.parse(await incus.ask('POST', `/1.0/instances?project=${project}`, body));
    await guest.ended(id);
    return guest;
  }

  /** Runs a bash script in the guest, as root, beside the runner. Rejects where Incus cannot run it. */
  shell(script: string): Promise<CommandResult> {
    return this.incus.exec(this.project, this.name, [bash, '-c', script]);
  }

  /** As `shell`, but an exit code other than 0 is an error. Returns what the script printed. */
  shellOk(script: string): Promise<string> {
    return this.incus.execOk(this.project, this.name, [bash, '-c', script]);
  }

  /** Sends the launch as a controller does, and returns the operation that waits for its end. */
  async start(job: Request): Promise<string> {
    const { command, timeoutSeconds = 60, asRoot = false, parameters = {} } = job;
    const flag = typeof asRoot === 'string' ? asRoot : asRoot ? '1' : '0';
    const argv = ['env'];
    if (command !== undefined) argv.push(`PIKACI_INCUS_GUEST_COMMAND=${command}`);
    argv.push(`PIKACI_INCUS_TIMEOUT_SECS=${timeoutSeconds}`, `PIKACI_INCUS_RUN_AS_ROOT=${flag}`, runner);
    const how = { 'record-output': true, 'wait-for-websocket': false, interactive: false };
    const path = `/1.0/instances/${this.name}/exec?project=${this.project}`;
    const environment = { ...parameters, ...(await this.putVariables(job.environment)) };
    return Operation.parse(await this.incus.ask('POST', path, { command: argv, environment, ...how })).id;
  }

  /** Puts variables where the runner takes them from. Returns what tells it. */
  async putVariables(variables: Request['environment'] = {}): Promise<Record<string, string>> {
    const entries = Object.entries(variables).map(([name, value]) => [name, Buffer.from(value)] as const);
    if (entries.length === 0) return {};
    const local = join(await makeTempDir('variables'), 'file');
    await writeFile(local, environmentFile(new Map(entries)));
    const owner = ['--uid', '0', '--gid', '0', '--mode', '0600'];
    const to = `${this.name}${environmentFilePath}`;
    await this.incus.incusOk(['file', 'push', local, to, ...owner, '--project', this.project]);
    await rm(dirname(local), { recursive: true });
    return { [environmentFileVariable]: environmentFilePath };
  }

  /** The return code of a launch that has ended. */
  async ended(operation: string): Promise<number | undefined> {
    return Operation.parse(await this.incus.ask('GET', `/1.0/operations/${operation}/wait`)).metadata?.return;
  }

  async run(job: Request): Promise<Ended> {
    const code = await this.ended(await this.start(job));
    return { code, result: await this.result(), log: await this.log() };
  }

  async result(): Promise<Result> {
    return Result.parse(JSON.parse(await this.file('/artifacts/result.json')));
  }

  async log(): Promise<string> {
    return this.file('/artifacts/guest.log');
  }

  /** A file as Incus's files API hands it out. */
  async file(path: string): Promise<string> {
    const args = ['file', 'pull', `${this.name}${path}`, '-', '--project', this.project];
    return this.incus.incusOk(args);
  }

  /** Makes the guest as good as new for the runner: what a test may do to save a launch, and nobody else. */
  async reset(): Promise<void> {
    await this.shellOk(
      'rm -rf /var/lib/pikaci-incus-run /run/pikaci-incus-run /artifacts/* /artifacts/.[!.]*',
    );
  }

  /** Restarts the guest without asking it. */
  async restart(): Promise<void> {
    await this.incus.incusOk(['restart', '--force', this.name, '--project', this.project]);
  }

  async delete(): Promise<void> {
    await this.incus.incusOk(['delete', '--force', this.name, '--project', this.project]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }
}
