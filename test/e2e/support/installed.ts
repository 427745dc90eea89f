import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { CiJob } from '../../../controller/api/cijob.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import type { Bench } from './bench.ts';
import { ControllerProcess } from './controller.ts';
import { hostManifests, systemNamespace } from './hosts.ts';

const repository = join(import.meta.dirname, '../../..');

/** `deploy/install.yaml`, which people apply. */
export const installFile = join(repository, 'deploy/install.yaml');

export interface InstalledOptions {
  flags?: readonly string[];
  /** Added to the environment of the controller. */
  env?: Record<string, string>;
  slots?: number;
}

/**
 * A cluster as an operator has it after `kubectl apply --server-side -f deploy/install.yaml`: the controller runs as the
 * ServiceAccount of that file, with its rules and no others. It runs beside the cluster, as there are no nodes.
 */
export class Installed implements AsyncDisposable {
  readonly bench: Bench;
  readonly controller: ControllerProcess;
  readonly #dir: string;

  private constructor(bench: Bench, controller: ControllerProcess, dir: string) {
    this.bench = bench;
    this.controller = controller;
    this.#dir = dir;
  }

  /** Installs, adds the bench's host as `build-1`, makes the namespace `ci` and starts the controller. */
  static async start(
    bench: Bench,
    { flags = [], env = {}, slots = 4 }: InstalledOptions = {},
  ): Promise<Installed> {
    const { controlPlane, host } = bench;
    await controlPlane.kubectlOk(['apply', '--server-side', '-f', installFile]);
    await controlPlane.kubectlOk([
      'wait',
      '--for=condition=Established',
      'crd/cijobs.ci.pikaci.dev',
      'crd/incushosts.ci.pikaci.dev',
    ]);
    await controlPlane.kubectlOk(['create', 'namespace', 'ci']);
    const items = await hostManifests('build-1', host, { slots });
    await controlPlane.kubectlOk(['apply', '-f', '-'], {
      input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }),
    });
    const dir = await makeTempDir('ctl');
    const controller = await ControllerProcess.start({
      kubeconfig: await controlPlane.serviceAccountKubeconfig(systemNamespace, 'cijob-controller'),
      namespace: systemNamespace,
      logFile: join(dir, 'controller.log'),
      flags,
      env,
    });
    await controlPlane.kubectlOk(['wait', '--for=condition=Ready', 'incushost/build-1', '--timeout=60s']);
    return new Installed(bench, controller, dir);
  }

  /** kubectl as admin, in the namespace `ci`. Any end other than success is an error. */
  kubectl(args: readonly string[], input?: object): Promise<string> {
    const options = input === undefined ? {} : { input: JSON.stringify(input) };
    return this.bench.controlPlane.kubectlOk(['--namespace', 'ci', ...args], options);
  }

  /** Applies objects with one kubectl. */
  apply(...items: object[]): Promise<string> {
    return this.kubectl(['apply', '-f', '-'], { apiVersion: 'v1', kind: 'List', items });
  }

  async jobs(): Promise<CiJob[]> {
    return (JSON.parse(await this.kubectl(['get', 'cijobs', '-o', 'json'])) as { items: CiJob[] }).items;
  }

  /** Waits until these jobs are over and let go, and returns them in that order. */
  async finished(...names: string[]): Promise<CiJob[]> {
    const deadline = performance.now() + 90_000;
    for (;;) {
      const jobs = await this.jobs();
      const found = names.map((name) => jobs.find((job) => job.metadata.name === name));
      const over = found.filter(
        (job) => job?.status?.completionTime !== undefined && !job.metadata.finalizers?.length,
      );
      if (over.length === names.length) return over.filter((job) => job !== undefined);
      if (performance.now() > deadline)
        throw new Error(`not finished: ${JSON.stringify(found.map((job) => job?.status))}`);
      await delay(200);
    }
  }

  async stop(): Promise<void> {
    await this.controller.stop();
    await clearAway(this.#dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
