import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { CiJob } from '../../controller/api/cijob.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { MortalController, someMoment } from './chaos-controller.ts';
import { chaosJob, inputOf, isOver, type ChaosJob } from './chaos-jobs.ts';
import { report, type Report } from './chaos-report.ts';
import { Tally } from './chaos-tally.ts';
import { ApiRequests } from './support/api-requests.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster } from './support/cluster.ts';
import { systemNamespace } from './support/hosts.ts';

/** How much is to happen, at least. */
export interface StormSize {
  jobs: number;
  controllerKills: number;
  sshCuts: number;
  incusdKills: number;
  /** Of kube-apiserver and etcd, in turn. */
  apiRestarts: number;
  /** When all is quiet again, what is left must be done within this time. */
  settleSeconds: number;
}

const jobsAtOnce = 10;
const cijobs = '/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs';
const lease = `/apis/coordination.k8s.io/v1/namespaces/${systemNamespace}/leases/cijob-controller`;
/** One in so many kills leaves its lease to run out; else the test takes it away, to save its 15 s. */
const leaseRunsOutEvery = 25;

/** Runs jobs while everything below them dies, again and again; then lets it rest, and tells what came of it. */
export async function storm(size: StormSize, say: (line: string) => void): Promise<Report> {
  await using stack = new AsyncDisposableStack();
  const kept = process.env['CHAOS_LOGS'];
  const dir = kept ?? (await makeTempDir('storm'));
  if (kept === undefined) stack.defer(() => clearAway(dir));
  // Inherited by every controller: what the first one compiled, which ends in peace, the others need not. More lives fit
  // into the same time, and more of each is work.
  delete process.env['NODE_DISABLE_COMPILE_CACHE'];
  process.env['NODE_COMPILE_CACHE'] ??= join(dir, 'compiled');
  await using bench = await startBench({ controlPlane: true, ownIncusd: true });
  await using cluster = await Cluster.start(bench, { slots: 6 });
  await cluster.controller.stop();
  await using tally = await Tally.start(bench.host);
  return await new Storm(size, say, bench, cluster, tally).run(join(dir, 'controller.log'));
}

class Storm {
  readonly #size: StormSize;
  readonly #say: (line: string) => void;
  readonly #bench: Bench;
  readonly #cluster: Cluster;
  readonly #tally: Tally;
  readonly #api: ApiRequests;
  readonly #jobs: ChaosJob[] = [];
  readonly #done = { sshCuts: 0, incusdKills: 0, apiRestarts: 0 };
  #quiet = false;

  constructor(size: StormSize, say: (line: string) => void, bench: Bench, cluster: Cluster, tally: Tally) {
    this.#size = size;
    this.#say = say;
    this.#bench = bench;
    this.#cluster = cluster;
    this.#tally = tally;
    this.#api = new ApiRequests(bench.controlPlane.adminKubeconfig);
  }

  async run(logFile: string): Promise<Report> {
    const controller: MortalController = new MortalController({
      kubeconfig: this.#bench.controlPlane.adminKubeconfig,
      namespace: systemNamespace,
      logFile,
      beforeStart: () => this.#freeLease(controller.kills),
    });
    const stormStarted = performance.now();
    const following = this.#followJobs();
    const raging = Promise.all([this.#damage(controller), this.#cutConnections(controller)]);
    while (!this.#raged(controller)) await controller.live(someMoment());
    await raging;
    this.#quiet = true;
    const seconds = Math.round((performance.now() - stormStarted) / 1000);
    this.#say(`${controller.kills} kills in ${seconds} s; letting it settle`);
    await controller.liveUntil(Promise.race([following, delay(this.#size.settleSeconds * 1000)]));
    controller.close();
    const instancesLeft = await this.#cluster.instances();
    this.#api[Symbol.dispose]();
    return report({
      jobs: this.#jobs,
      runs: this.#tally.runs,
      instancesLeft,
      controllerKills: controller.kills,
      ...this.#done,
    });
  }

  #raged({ kills }: MortalController): boolean {
    const { controllerKills, sshCuts, incusdKills, apiRestarts, jobs } = this.#size;
    return (
      kills >= controllerKills &&
      this.#done.sshCuts >= sshCuts &&
      this.#done.incusdKills >= incusdKills &&
      this.#done.apiRestarts >= apiRestarts &&
      this.#jobs.length >= jobs
    );
  }

  async #freeLease(kills: number): Promise<void> {
    if (kills % leaseRunsOutEvery === leaseRunsOutEvery - 1) return;
    await this.#api.send('DELETE', lease, undefined).catch(() => undefined);
  }

  /** Keeps some jobs going, calls off those that are to be, and watches all, until the storm is over and they are. */
  async #followJobs(): Promise<void> {
    while (!this.#quiet || this.#jobs.some((job) => !job.over)) {
      if (!this.#quiet && this.#jobs.filter(({ over }) => !over).length < jobsAtOnce) {
        const job = chaosJob(this.#jobs.length);
        this.#jobs.push(job);
        void this.#create(job);
      }
      for (const job of this.#jobs) if (!job.over) await this.#look(job).catch(() => undefined);
      await delay(200);
    }
  }

  /** As `kubectl apply` until it works: the API server may be down. */
  async #create(job: ChaosJob): Promise<void> {
    const input = inputOf(job, this.#tally.source);
    for (;;) {
      try {
        await this.#cluster.apply(job.name, input);
        job.createdAt = performance.now();
        return;
      } catch {
        await delay(500);
      }
    }
  }

  async #look(job: ChaosJob): Promise<void> {
    const { name, kind } = job;
    if (job.createdAt === undefined) return;
    const path = `${cijobs}/${name}`;
    if (this.#isToBeCalledOff(job)) {
      const answer =
        kind === 'delete'
          ? await this.#api.send('DELETE', path, undefined)
          : await this.#api.send('PATCH', path, { spec: { cancel: true } }, 'application/merge-patch+json');
      if (answer.status >= 300) return;
      job.calledOffAt = performance.now();
    }
    const seen = (await this.#api.get(path)) as CiJob | undefined;
    if (seen) job.last = seen;
    job.over = isOver(job, seen);
  }

  #isToBeCalledOff({ name, kind, createdAt, calledOffAt, callOffRunning, callOffAfter }: ChaosJob): boolean {
    if ((kind !== 'cancel' && kind !== 'delete') || calledOffAt !== undefined) return false;
    const since = callOffRunning ? this.#tally.of(name)[0]?.heardAt : createdAt;
    return since !== undefined && performance.now() - since > callOffAfter;
  }

  /** Kills incusd, kube-apiserver and etcd, each in its turn, spread over the controller's deaths. */
  async #damage(controller: MortalController): Promise<void> {
    const { incusdKills, apiRestarts, controllerKills } = this.#size;
    const acts = Array.from({ length: Math.max(incusdKills, apiRestarts) }).flatMap((_, index) => [
      ...(index < incusdKills ? [() => this.#killIncusd()] : []),
      ...(index < apiRestarts ? [() => this.#killApi(index % 2 === 0 ? 'kube-apiserver' : 'etcd')] : []),
    ]);
    for (const [index, act] of acts.entries()) {
      const due = ((index + 1) * controllerKills) / (acts.length + 1);
      while (controller.kills < due) await delay(50);
      await act();
    }
  }

  async #killIncusd(): Promise<void> {
    const incusd = this.#bench.host.incusd;
    await incusd?.kill9();
    await delay(Math.random() * 2000);
    await incusd?.restart();
    this.#done.incusdKills += 1;
    this.#say('incusd was killed and started again');
  }

  async #killApi(part: 'kube-apiserver' | 'etcd'): Promise<void> {
    await this.#bench.controlPlane.kill9(part);
    await delay(Math.random() * 2000);
    await this.#bench.controlPlane.restart(part);
    this.#done.apiRestarts += 1;
    this.#say(`${part} was killed and started again`);
  }

  async #cutConnections(controller: MortalController): Promise<void> {
    const { sshCuts, controllerKills } = this.#size;
    while (this.#done.sshCuts < sshCuts || controller.kills < controllerKills) {
      await delay(500 + Math.random() * 4000);
      // Only a connection that was there counts.
      if ((await this.#bench.host.sshd.cutConnections()) > 0) this.#done.sshCuts += 1;
    }
  }
}
