import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { run } from '../../support/command.ts';
import { docBlocks } from '../../support/doc-blocks.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import type { Bench } from './bench.ts';
import { ControllerProcess } from './controller.ts';
import { hostManifests, systemNamespace } from './hosts.ts';

const repository = join(import.meta.dirname, '../../..');

/**
 * Follows documents as a reader does: runs the blocks marked `sh tested` as they stand there, in a directory that holds
 * what the repository holds. What a reader brings is brought here: an Incus host with the key and the manifest of its
 * preparation (deploy-host.test.ts has the script); and a node, as the cluster has none: once the manifests are applied,
 * the controller runs beside it as its ServiceAccount.
 */
export class Reader implements AsyncDisposable {
  readonly dir: string;
  readonly bench: Bench;
  #controller: ControllerProcess | undefined;

  private constructor(dir: string, bench: Bench) {
    this.dir = dir;
    this.bench = bench;
  }

  static async start(bench: Bench): Promise<Reader> {
    const dir = await makeTempDir('reader');
    await mkdir(join(dir, 'bin'));
    await symlink(bench.controlPlane.binaries.kubectl, join(dir, 'bin/kubectl'));
    for (const name of ['controller', 'deploy', 'docs', 'nix', 'node_modules', 'test']) {
      await symlink(join(repository, name), join(dir, name));
    }
    await copyFile(join(repository, 'package.json'), join(dir, 'package.json'));
    const reader = new Reader(dir, bench);
    await reader.#hostIsPrepared();
    return reader;
  }

  /** What prepare-incus-host.sh leaves the reader with: `build-1.yaml`, and the key, with a new one to change to. */
  async #hostIsPrepared(): Promise<void> {
    const { host } = this.bench;
    // Whoever follows the documents labels the namespace before there is a job in it.
    const allowedNamespaces = { matchLabels: { 'ci.pikaci.dev/allowed': 'true' } };
    const [, manifest] = await hostManifests('build-1', host, { spec: { allowedNamespaces } });
    await writeFile(join(this.dir, 'build-1.yaml'), JSON.stringify(manifest));
    const key = await host.sshd.privateKey();
    await writeFile(join(this.dir, 'build-1-key'), key, { mode: 0o600 });
    // Other bytes, and a key that sshd lets in.
    await writeFile(join(this.dir, 'new-key'), `${key}\n`, { mode: 0o600 });
  }

  /** Runs commands in a shell that stops at the first error, which is one of the test, and returns what they print. */
  async sh(commands: string): Promise<string> {
    const { code, stdout, stderr } = await run('bash', ['-euo', 'pipefail', '-c', commands], {
      cwd: this.dir,
      timeoutMs: 300_000,
      env: {
        ...this.bench.host.incus.env,
        PATH: `${join(this.dir, 'bin')}:${process.env['PATH'] ?? ''}`,
        KUBECONFIG: this.bench.controlPlane.adminKubeconfig,
      },
    });
    expect(code, `${commands}\n${stdout}\n${stderr}`).toBe(0);
    return stdout;
  }

  /** Runs the tested blocks of a document below some headings, which must have such blocks, and returns what they print. */
  async follow(path: string, ...titles: string[]): Promise<string> {
    const blocks = (await docBlocks(path)).filter(({ title, tested }) => tested && titles.includes(title));
    expect(new Set(blocks.map(({ title }) => title))).toEqual(new Set(titles));
    let printed = '';
    for (const { commands } of blocks) {
      printed += await this.sh(commands);
      if (commands.includes('kubectl apply --server-side -k my-cluster')) await this.#nodeStartsPod();
    }
    return printed;
  }

  async #nodeStartsPod(): Promise<void> {
    this.#controller ??= await ControllerProcess.start({
      kubeconfig: await this.bench.controlPlane.serviceAccountKubeconfig(systemNamespace, 'cijob-controller'),
      namespace: systemNamespace,
      logFile: join(this.dir, 'controller.log'),
    });
  }

  async stop(): Promise<void> {
    await this.#controller?.stop();
    await clearAway(this.dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
