import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { CiJob } from '../../controller/api/cijob.ts';
import { isTrue } from '../../controller/api/conditions.ts';
import { systemClock } from '../../controller/clock.ts';
import { KubeClient } from '../../controller/kube/client.ts';
import { loadKubeConfig } from '../../controller/kube/kube-config.ts';
import { linesOf } from '../../controller/kube/lines.ts';
import { cijobs } from '../../controller/kube/resources.ts';
import { Transport } from '../../controller/kube/transport.ts';
import { ControllerProcess } from '../e2e/support/controller.ts';
import { hostManifests, systemNamespace } from '../e2e/support/hosts.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { benchJob, type Ground } from './ground.ts';

const crds = join(import.meta.dirname, '../../crds');
const namespace = 'ci';
const userAgent = 'cijob-bench';

/** What one job through the API server cost. */
export interface ClusterRun {
  /** From sending the create to the watch event that shows Complete. */
  milliseconds: number;
  /** When that event came, in milliseconds since the epoch. */
  terminalAt: number;
  instance: string;
  /** The controller's own writes to the CiJob. */
  apiWrites: number;
  /** Requests of the controller to Incus, from the create to the instance's end. */
  incusRequests: number;
}

/** A real control plane and the real controller, and a watch on the jobs as any client has it. */
export class ClusterRuns implements AsyncDisposable {
  readonly #controlPlane: ControlPlane;
  readonly #controller: ControllerProcess;
  readonly #client: KubeClient;
  readonly #stack: AsyncDisposableStack;
  #onJob: (job: CiJob) => void = () => undefined;

  private constructor(
    controlPlane: ControlPlane,
    controller: ControllerProcess,
    client: KubeClient,
    stack: AsyncDisposableStack,
  ) {
    this.#controlPlane = controlPlane;
    this.#controller = controller;
    this.#client = client;
    this.#stack = stack;
  }

  static async start(ground: Ground, dir: string, onProgress: (line: string) => void): Promise<ClusterRuns> {
    await using stack = new AsyncDisposableStack();
    const controlPlane = stack.use(await ControlPlane.start({ onProgress }));
    const files = (await readdir(crds)).flatMap((file) => ['-f', join(crds, file)]);
    await controlPlane.kubectlOk(['apply', ...files]);
    await controlPlane.kubectlOk(['wait', '--for=condition=Established', ...files]);
    for (const name of [systemNamespace, namespace])
      await controlPlane.kubectlOk(['create', 'namespace', name]);
    for (const object of await hostManifests('build-1', ground)) {
      await controlPlane.kubectlOk(['apply', '-f', '-'], { input: JSON.stringify(object) });
    }
    const controller = stack.use(
      await ControllerProcess.start({
        kubeconfig: controlPlane.adminKubeconfig,
        namespace: systemNamespace,
        logFile: join(dir, 'controller.log'),
      }),
    );
    await controlPlane.kubectlOk(['wait', '--for=condition=Ready', 'incushost/build-1', '--timeout=30s']);
    const config = loadKubeConfig({ file: controlPlane.adminKubeconfig });
    const transport = new Transport({ config, clock: systemClock, userAgent });
    stack.defer(() => transport.close());
    const client = new KubeClient(transport);
    const runs = new ClusterRuns(controlPlane, controller, client, stack.move());
    await runs.#watch();
    return runs;
  }

  /** One job, the removal of its instance, and then of the job. */
  async run(name: string): Promise<ClusterRun> {
    const { promise, resolve } = Promise.withResolvers<{ job: CiJob; terminalAt: number; took: number }>();
    const { promise: gone, resolve: isGone } = Promise.withResolvers<undefined>();
    const requestsBefore = this.#incusRequests();
    this.#onJob = (job) => {
      if (job.metadata.name !== name) return;
      const { conditions } = job.status ?? {};
      if (!isTrue(conditions, 'Complete') && !isTrue(conditions, 'Failed')) return;
      resolve({ job, terminalAt: Date.now(), took: performance.now() - started });
      if (!job.metadata.finalizers?.length) isGone(undefined);
    };
    const started = performance.now();
    await this.#client.create(cijobs, namespace, { ...benchJob, metadata: { name, namespace } });
    const { job, terminalAt, took } = await promise;
    await gone;
    if (job.status?.phase !== 'Succeeded') {
      throw new Error(`the cluster's job ended as ${JSON.stringify(job.status?.failure)}`);
    }
    const writes = await this.#controlPlane.writesTo({ resource: 'cijobs', namespace, name });
    const incusRequests = this.#incusRequests() - requestsBefore;
    await this.#client.delete(cijobs, { namespace, name });
    return {
      milliseconds: took,
      terminalAt,
      instance: job.status.instance?.name ?? '',
      apiWrites: writes.filter((write) => write.userAgent?.startsWith(userAgent) !== true).length,
      incusRequests,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  #incusRequests(): number {
    return this.#controller.log().filter((line) => line.msg === 'request').length;
  }

  async #watch(): Promise<void> {
    const { resourceVersion } = await this.#client.list(cijobs, { namespace }, {});
    const from = { resourceVersion, timeoutSeconds: 3600 };
    const stream = await this.#client.watch(cijobs, { namespace }, from);
    this.#stack.defer(() => {
      stream.destroy();
    });
    const read = async () => {
      for await (const line of linesOf(stream as AsyncIterable<Buffer>, 1024 * 1024)) {
        const { type, object } = JSON.parse(line) as { type: string; object: CiJob };
        if (type === 'ADDED' || type === 'MODIFIED') this.#onJob(object);
      }
    };
    // It ends when it is destroyed, at the end of everything.
    void read().catch(() => undefined);
  }
}
