import { spawn, type ChildProcess } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { CiJobSpec } from '../../controller/api/cijob.ts';
import type { IncusHost } from '../../controller/api/incushost.ts';
import { FarHost } from './far-host.ts';
import type { JobScript } from './incus-sim/guest-script.ts';
import { clearAway } from './left-under.ts';
import { makeTempDir } from './temp-dir.ts';

const program = join(import.meta.dirname, '../../controller/main.ts');
export const patience = { timeout: 25_000 };

const base = {
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  metadata: { name: 'build' },
  spec: { command: 'make', instance: { type: 'Container', image: 'pikaci/dev' } },
};

/** A log that comes piece by piece, one every so many milliseconds. */
export function pieces(count: number, every: number, text: string): { atMs: number; text: string }[] {
  return Array.from({ length: count }, (_, at) => ({ atMs: at * every, text }));
}

export interface StartOptions {
  /** Options of node itself. */
  node?: readonly string[];
  subcommand?: 'run' | 'plan';
  flags?: readonly string[];
  /** Descriptor for standard output. Default: a pipe. */
  stdout?: number;
}

/** A process of the program. */
export interface Started {
  child: ChildProcess;
  said: { stdout: string; stderr: string };
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Resolves when one of the outputs has said something. */
  says: (stream: 'stdout' | 'stderr', words: string) => Promise<void>;
}

/** `cijob run` as a process of its own, with one job, on a simulated host behind a network. */
export class FarRun implements AsyncDisposable {
  /** What the job asks, beside the usual. */
  spec: Partial<CiJobSpec> = {};
  /** Hosts there are beside the one behind the network. */
  others: IncusHost[] = [];
  /** What the job's command does. */
  script: JobScript = { runMs: Infinity, log: 'here\n' };
  readonly host: FarHost;
  readonly #dir: string;

  private constructor(dir: string, host: FarHost) {
    this.#dir = dir;
    this.host = host;
  }

  static async prepare(): Promise<FarRun> {
    const dir = await makeTempDir('far-run');
    const host = await FarHost.start({ job: () => run.script });
    const run = new FarRun(dir, host);
    await writeFile(join(dir, 'key'), host.machine.privateKey);
    return run;
  }

  /** Starts the program on the host. */
  async start({ node = [], subcommand = 'run', flags = [], stdout }: StartOptions = {}): Promise<Started> {
    const file = join(this.#dir, 'all.yaml');
    const job = { ...base, spec: { ...base.spec, ...this.spec } };
    const all = [job, this.host.resource, ...this.others];
    await writeFile(file, all.map((one) => JSON.stringify(one)).join('\n---\n'));
    const args = [subcommand, '-f', file, '-i', join(this.#dir, 'key'), ...flags];
    const child = spawn(process.execPath, [...node, program, ...args], {
      stdio: ['ignore', stdout ?? 'pipe', 'pipe'],
    });
    const said = { stdout: '', stderr: '' };
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (said.stdout += chunk));
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (said.stderr += chunk));
    const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    const says = async (stream: 'stdout' | 'stderr', words: string) => {
      await expect.poll(() => said[stream], patience).toContain(words);
    };
    return { child, said, ended, says };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host[Symbol.asyncDispose]();
    await clearAway(this.#dir);
  }
}
