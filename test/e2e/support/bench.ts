import { randomBytes } from 'node:crypto';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { inject } from 'vitest';
import { ControlPlane } from '../../support/control-plane.ts';
import { IncusServer } from '../../support/incus-server.ts';
import { Incusd } from '../../support/incusd.ts';
import { clearAway } from '../../support/left-under.ts';
import { Sshd, type SshdSettings } from '../../support/sshd.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { projectPrefix } from './leftovers.ts';
import { importGuestImages } from './shared-incus.ts';

export interface BenchOptions {
  /** Bring up etcd and kube-apiserver too. Default: no. */
  controlPlane?: boolean;
  /** How many Incus hosts. Default: one. */
  hosts?: number;
  /** Give each host an incusd of its own, to be killed and started again. Default: all share the run's one. */
  ownIncusd?: boolean;
  /** Settings of the hosts' sshd. */
  sshd?: SshdSettings;
}

/** One Incus host as the controller knows it: a project on an Incus server, reached by SSH. */
export interface BenchHost {
  incus: IncusServer;
  /** The same server, where it is this host's own (`ownIncusd`). */
  incusd?: Incusd;
  sshd: Sshd;
  /** A restricted project, empty at first, that allows mounts from `sources` only. */
  project: string;
  /** A directory that guests may mount from. */
  sources: string;
}

/**
 * What one test file works on: real parts, brought up fresh, shared with no other file but for the Incus server.
 *
 *     const bench = await startBench({ controlPlane: true });
 *     afterAll(() => bench.stop());
 */
export class Bench implements AsyncDisposable {
  readonly hosts: readonly BenchHost[];
  readonly #controlPlane: ControlPlane | undefined;
  readonly #stack: AsyncDisposableStack;

  constructor(
    hosts: readonly BenchHost[],
    controlPlane: ControlPlane | undefined,
    stack: AsyncDisposableStack,
  ) {
    this.hosts = hosts;
    this.#controlPlane = controlPlane;
    this.#stack = stack;
  }

  /** The first host, which most tests need alone. */
  get host(): BenchHost {
    const [host] = this.hosts;
    if (!host) throw new Error('this bench was started with no hosts');
    return host;
  }

  get controlPlane(): ControlPlane {
    if (!this.#controlPlane) throw new Error('this bench was started without `controlPlane: true`');
    return this.#controlPlane;
  }

  /** Takes everything down, in the reverse order. */
  async stop(): Promise<void> {
    await this.#stack.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

export async function startBench(options: BenchOptions = {}): Promise<Bench> {
  await using stack = new AsyncDisposableStack();
  const dir = await makeTempDir('bench');
  stack.defer(() => clearAway(dir));
  const hosts: BenchHost[] = [];
  for (let index = 0; index < (options.hosts ?? 1); index += 1) {
    hosts.push(await startHost(join(dir, `host-${index}`), options, stack));
  }
  const controlPlane = options.controlPlane === true ? stack.use(await ControlPlane.start()) : undefined;
  return new Bench(hosts, controlPlane, stack.move());
}

async function startHost(
  sources: string,
  options: BenchOptions,
  stack: AsyncDisposableStack,
): Promise<BenchHost> {
  const incusd = options.ownIncusd === true ? stack.use(await Incusd.start()) : undefined;
  if (incusd) await importGuestImages(incusd);
  const incus = incusd ?? new IncusServer(inject('incusDir'));
  await mkdir(sources, { mode: 0o755 });
  const project = `${projectPrefix(tmpdir())}${randomBytes(3).toString('hex')}`;
  await incus.createRestrictedProject(project, [sources]);
  // A server of the bench's own goes as a whole, and may be down by then.
  if (!incusd) stack.defer(() => incus.deleteProject(project));
  const sshd = stack.use(await Sshd.start({ incus, ...(options.sshd && { settings: options.sshd }) }));
  return { incus, ...(incusd && { incusd }), sshd, project, sources };
}

/**
 * Makes a directory of files that guests may mount, and returns its path. Everyone may read it, as in the Nix store: in
 * a restricted project, files belong to nobody a container knows.
 */
export async function addSource(
  host: BenchHost,
  name: string,
  files: Readonly<Record<string, string>>,
): Promise<string> {
  const dir = join(host.sources, name);
  await mkdir(dir, { recursive: true, mode: 0o755 });
  for (const [path, content] of Object.entries(files)) {
    const file = join(dir, path);
    await mkdir(dirname(file), { recursive: true, mode: 0o755 });
    await writeFile(file, content);
    await chmod(file, 0o644);
  }
  return dir;
}
