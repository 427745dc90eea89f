import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { CiJob, CiJobSpec } from '../../../controller/api/cijob.ts';
import type { IncusHostSpec } from '../../../controller/api/incushost.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { clearAway } from '../../support/left-under.ts';
import type { Bench, BenchHost } from './bench.ts';
import { ControllerProcess } from './controller.ts';

const crds = join(import.meta.dirname, '../../../crds');
const system = 'cijob-system';

/** What a test says of a job; the rest are defaults that suit a test machine. */
export type JobInput = Partial<Omit<CiJobSpec, 'instance'>> & { command: string; image?: string } & {
  instance?: Partial<CiJobSpec['instance']>;
};

export interface ClusterOptions {
  via?: 'Socket' | 'Sudo';
  slots?: number;
  flags?: readonly string[];
  host?: Partial<IncusHostSpec>;
}

/** A cluster with the CRDs, one IncusHost `build-1` for the bench's host, and a controller that runs. */
export class Cluster implements AsyncDisposable {
  readonly bench: Bench;
  readonly controller: ControllerProcess;
  readonly #dir: string;

  private constructor(bench: Bench, controller: ControllerProcess, dir: string) {
    this.bench = bench;
    this.controller = controller;
    this.#dir = dir;
  }

  static async start(bench: Bench, options: ClusterOptions = {}): Promise<Cluster> {
    const { controlPlane, host } = bench;
    const dir = await makeTempDir('ctl');
    const files = (await readdir(crds)).flatMap((file) => ['-f', join(crds, file)]);
    await controlPlane.kubectlOk(['apply', ...files]);
    await controlPlane.kubectlOk(['wait', '--for=condition=Established', ...files]);
    for (const namespace of [system, 'ci']) {
      await controlPlane.kubectlOk(['create', 'namespace', namespace]);
    }
    await applyHost(bench, host, options);
    const controller = await ControllerProcess.start({
      kubeconfig: controlPlane.adminKubeconfig,
      namespace: system,
      logFile: join(dir, 'controller.log'),
      ...(options.flags ? { flags: options.flags } : {}),
    });
    const cluster = new Cluster(bench, controller, dir);
    await cluster.kubectl('wait', '--for=condition=Ready', 'incushost/build-1', '--timeout=30s');
    return cluster;
  }

  /** kubectl in the namespace `ci`. Any end other than success is an error. */
  kubectl(...args: string[]): Promise<string> {
    return this.bench.controlPlane.kubectlOk(['--namespace', 'ci', ...args]);
  }

  /** Creates a job as `kubectl apply` does. */
  async apply(name: string, input: JobInput): Promise<void> {
    await this.bench.controlPlane.kubectlOk(['--namespace', 'ci', 'apply', '-f', '-'], {
      input: JSON.stringify(manifest(name, input)),
    });
  }

  async job(name: string): Promise<CiJob> {
    return JSON.parse(await this.kubectl('get', 'cijob', name, '-o', 'json')) as CiJob;
  }

  /** Waits until a condition is there, and returns the job. */
  async until(name: string, condition: string, seconds = 60): Promise<CiJob> {
    await this.kubectl('wait', `--for=condition=${condition}`, `cijob/${name}`, `--timeout=${seconds}s`);
    return this.job(name);
  }

  /** Waits for the end of a job, whatever it is, and until nothing of it is left on the host. */
  async finished(name: string, seconds = 60): Promise<CiJob> {
    await this.kubectl(
      'wait',
      `--for=jsonpath={.status.completionTime}`,
      `cijob/${name}`,
      `--timeout=${seconds}s`,
    );
    return this.cleanedUp(name, seconds);
  }

  /** Waits until the finalizer is off. */
  async cleanedUp(name: string, seconds = 60): Promise<CiJob> {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      const job = await this.job(name);
      if (!job.metadata.finalizers?.length) return job;
      if (Date.now() > deadline) throw new Error(`cijob ${name} still has its finalizer`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Names of the instances on the host. */
  instances(): Promise<string[]> {
    return this.bench.host.incus.instances(this.bench.host.project);
  }

  async stop(): Promise<void> {
    await this.controller.stop();
    await clearAway(this.#dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** The manifest of a CiJob in a container of 1 CPU and 256 MiB. */
export function manifest(name: string, { image = 'pikaci/busybox', instance, ...spec }: JobInput) {
  return {
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'CiJob',
    metadata: { name },
    spec: {
      timeoutSeconds: 60,
      ...spec,
      instance: { type: 'Container', image, cpu: 1, memory: '256MiB', ...instance },
    },
  };
}

async function applyHost(bench: Bench, host: BenchHost, options: ClusterOptions): Promise<void> {
  const { sshd, incus, project, sources } = host;
  const { controlPlane } = bench;
  const secret = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'build-1-ssh', namespace: system },
    stringData: { id_ed25519: await sshd.privateKey() },
  };
  const incusHost = {
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'IncusHost',
    metadata: { name: 'build-1' },
    spec: {
      connection: {
        ssh: {
          address: sshd.address,
          port: sshd.port,
          user: sshd.user,
          privateKeySecretRef: { name: 'build-1-ssh', key: 'id_ed25519' },
          hostKeys: [await sshd.hostKey()],
          via: options.via ?? 'Socket',
          socketPath: incus.socketPath,
        },
      },
      project,
      capacity: { instances: options.slots ?? 4 },
      allowedSources: [sources],
      allowedNamespaces: { all: true },
      ...options.host,
    },
  };
  const input = [secret, incusHost].map((object) => JSON.stringify(object)).join('\n---\n');
  await controlPlane.kubectlOk(['apply', '-f', '-'], { input });
}
