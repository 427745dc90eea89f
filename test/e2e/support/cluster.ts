import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { CiJob, CiJobSpec } from '../../../controller/api/cijob.ts';
import type { IncusHost, IncusHostSpec } from '../../../controller/api/incushost.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { ApiRequests } from './api-requests.ts';
import type { Bench, BenchHost } from './bench.ts';
import { ControllerProcess } from './controller.ts';
import { hostManifests, systemNamespace, type HostInput } from './hosts.ts';

const crds = join(import.meta.dirname, '../../../crds');
const group = '/apis/ci.pikaci.dev/v1alpha1';

/** What a test says of a job; the rest are defaults that suit a test machine. */
export type JobInput = Partial<Omit<CiJobSpec, 'instance'>> & { command: string; image?: string } & {
  instance?: Partial<CiJobSpec['instance']>;
};

export interface ClusterOptions {
  via?: 'Socket' | 'Sudo';
  slots?: number;
  flags?: readonly string[];
  /** The controller's way to the API server. Default: straight, as admin. */
  kubeconfig?: string;
  host?: Partial<IncusHostSpec>;
  /** Names of the IncusHosts, each with the bench's host of the same place. Default: `build-1` for the first. */
  hosts?: Readonly<Record<string, HostInput>>;
}

/** Shows what runs in a guest, what its init still has to do, and how far the runner got. */
const guestTraces = `
  for process in /proc/[0-9]*; do echo "\${process#/proc/} $(tr '\\0' ' ' <$process/cmdline)"; done
  systemctl list-jobs
  cd /var/lib/pikaci-incus-run && tail -n +1 claim result.json runner.log`;

/** A cluster with the CRDs, one IncusHost `build-1` for the bench's host, and a controller that runs. */
export class Cluster implements AsyncDisposable {
  readonly bench: Bench;
  readonly controller: ControllerProcess;
  readonly #dir: string;
  readonly #api: ApiRequests;

  private constructor(bench: Bench, controller: ControllerProcess, dir: string) {
    this.bench = bench;
    this.controller = controller;
    this.#dir = dir;
    this.#api = new ApiRequests(bench.controlPlane.adminKubeconfig);
  }

  static async start(bench: Bench, options: ClusterOptions = {}): Promise<Cluster> {
    const { controlPlane } = bench;
    const { via, slots, host, flags = [] } = options;
    const only = { ...(via && { via }), ...(slots !== undefined && { slots }), ...(host && { spec: host }) };
    const hosts = Object.entries(options.hosts ?? { 'build-1': only });
    const dir = await makeTempDir('ctl');
    const files = (await readdir(crds)).flatMap((file) => ['-f', join(crds, file)]);
    await controlPlane.kubectlOk(['apply', ...files]);
    await controlPlane.kubectlOk(['wait', '--for=condition=Established', ...files]);
    for (const namespace of [systemNamespace, 'ci']) {
      await controlPlane.kubectlOk(['create', 'namespace', namespace]);
    }
    const objects = await Promise.all(
      hosts.map(([name, input], index) => hostManifests(name, bench.hosts[index] ?? bench.host, input)),
    );
    await controlPlane.kubectlOk(['apply', '-f', '-'], { input: list(objects.flat()) });
    const controller = await ControllerProcess.start({
      kubeconfig: options.kubeconfig ?? controlPlane.adminKubeconfig,
      namespace: systemNamespace,
      logFile: join(dir, 'controller.log'),
      flags,
    });
    const cluster = new Cluster(bench, controller, dir);
    await Promise.all(hosts.map(([name]) => cluster.hostReady(name)));
    return cluster;
  }

  /** kubectl in the namespace `ci`. Any end other than success is an error. */
  kubectl(...args: string[]): Promise<string> {
    return this.bench.controlPlane.kubectlOk(['--namespace', 'ci', ...args]);
  }

  /** Applies objects as `kubectl apply` does. */
  async applyObjects(...objects: object[]): Promise<void> {
    await this.bench.controlPlane.kubectlOk(['apply', '-f', '-'], { input: list(objects) });
  }

  /** Creates a job as `kubectl apply` does, in the namespace `ci`. */
  async apply(name: string, input: JobInput): Promise<void> {
    await this.applyAll({ [name]: input });
  }

  /** Creates many jobs with one `kubectl apply`. */
  async applyAll(jobs: Readonly<Record<string, JobInput>>): Promise<void> {
    const manifests = Object.entries(jobs).map(([name, input]) => manifest(name, input));
    const inNamespace = manifests.map((job) => ({ ...job, metadata: { ...job.metadata, namespace: 'ci' } }));
    await this.applyObjects(...inNamespace);
  }

  /** Changes fields of a job's spec. */
  async change(name: string, spec: Partial<CiJobSpec>): Promise<void> {
    await this.kubectl('patch', 'cijob', name, '--type=merge', '-p', JSON.stringify({ spec }));
  }

  /** Puts an IncusHost, and the Secret with its key, into the cluster. */
  async putHost(name: string, host: BenchHost, input: HostInput = {}): Promise<void> {
    await this.applyObjects(...(await hostManifests(name, host, input)));
  }

  async job(name: string): Promise<CiJob> {
    const job = await this.find(name);
    if (!job) throw new Error(`there is no cijob ${name}`);
    return job;
  }

  /** A job, or undefined when it is not there (any more). */
  async find(name: string): Promise<CiJob | undefined> {
    return (await this.#api.get(`${group}/namespaces/ci/cijobs/${name}`)) as CiJob | undefined;
  }

  async host(name: string): Promise<IncusHost> {
    return (await this.#api.get(`${group}/incushosts/${name}`)) as IncusHost;
  }

  /** Waits until a job is as it should be, and returns it. One that does not get there is told with all its traces. */
  async reached(name: string, what: string, test: (job: CiJob) => boolean, seconds = 60): Promise<CiJob> {
    try {
      return await eventually(() => this.job(name), test, `cijob ${name}: ${what}`, seconds);
    } catch (error) {
      const traces = await Promise.race([this.#tracesOf(name), delay(10_000, ['its guest does not answer'])]);
      (error as Error).message += `\n${traces.join('\n')}`;
      throw error;
    }
  }

  /** What the controller's log and the guest tell of a job. */
  async #tracesOf(name: string): Promise<string[]> {
    const instance = (await this.find(name))?.status?.instance?.name ?? '';
    const lines = this.controller
      .log()
      .filter(({ job, msg }) => job === `ci/${name}` || msg.startsWith('host '))
      .slice(-40)
      .map((line) => JSON.stringify(line));
    const guests = this.bench.hosts.map(async ({ incus, project }) => {
      if (!(await incus.instances(project)).includes(instance)) return [];
      const operations = await incus.query(`/1.0/operations?recursion=1&project=${project}`);
      const seen = await incus
        .exec(project, instance, ['sh', '-c', guestTraces])
        .catch((error: unknown) => error);
      const { stdout, stderr } = seen as { stdout?: string; stderr?: string };
      return [JSON.stringify(operations), `${stdout ?? String(seen)}${stderr ?? ''}`];
    });
    return [...lines, ...(await Promise.all(guests)).flat()];
  }

  /** Waits until an IncusHost is connected. */
  hostReady(name: string, seconds = 60): Promise<IncusHost> {
    const ready = ({ status }: IncusHost) =>
      status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') ?? false;
    return eventually(() => this.host(name), ready, `incushost ${name}: Ready`, seconds);
  }

  /** Waits until a condition is there, and returns the job. */
  until(name: string, condition: string, seconds = 60): Promise<CiJob> {
    const holds = ({ status }: CiJob) =>
      status?.conditions?.some((one) => one.type === condition && one.status === 'True') ?? false;
    return this.reached(name, condition, holds, seconds);
  }

  /** Waits for the end of a job, whatever it is, and until nothing of it is left on the host. */
  async finished(name: string, seconds = 60): Promise<CiJob> {
    await this.reached(name, 'finished', (job) => job.status?.completionTime !== undefined, seconds);
    return this.cleanedUp(name, seconds);
  }

  /** Waits until the finalizer is off. */
  cleanedUp(name: string, seconds = 60): Promise<CiJob> {
    return this.reached(name, 'without finalizer', (job) => !job.metadata.finalizers?.length, seconds);
  }

  /** Waits until a job is not there any more. */
  async gone(name: string, seconds = 60): Promise<void> {
    await eventually(
      () => this.find(name),
      (job) => job === undefined,
      `cijob ${name}: gone`,
      seconds,
    );
  }

  /** Names of the instances on a host, the first by default. */
  instances(host: BenchHost = this.bench.host): Promise<string[]> {
    return host.incus.instances(host.project);
  }

  async stop(): Promise<void> {
    this.#api[Symbol.dispose]();
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

/** Looks again and again until what it sees passes the test, and returns that. After the deadline, tells what it saw. */
export async function eventually<T>(
  look: () => Promise<T>,
  test: (seen: T) => boolean,
  what: string,
  seconds: number,
): Promise<T> {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const seen = await look();
    if (test(seen)) return seen;
    if (performance.now() > deadline) {
      throw new Error(`not within ${seconds} s: ${what}. Last seen: ${told(seen)}`);
    }
    await delay(50);
  }
}

function told(seen: unknown): string {
  return JSON.stringify(seen, (key, value: unknown) => (key === 'managedFields' ? undefined : value), 1);
}

function list(items: readonly object[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}
