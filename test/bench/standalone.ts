import { join } from 'node:path';
import { readInput } from '../../controller/cli/input.ts';
import { Standalone } from '../../controller/cli/standalone.ts';
import { keyOf } from '../../controller/reconcile/names.ts';
import { isFinished } from '../../controller/reconcile/step.ts';
import { runOk } from '../support/command.ts';
import type { Ground } from './ground.ts';

type Job = Parameters<Standalone['store']['create']>[0];

const program = join(import.meta.dirname, '../../controller/main.ts');

/** What `cijob run` consists of, over SSH, with its connection made once for all rounds. */
export class StandaloneRuns implements AsyncDisposable {
  readonly #standalone: Standalone;
  readonly #job: Job;
  #onJob: (key: string) => void = () => undefined;

  private constructor(standalone: (onJob: (key: string) => void) => Standalone, job: Job) {
    this.#standalone = standalone((key) => this.#onJob(key));
    this.#job = job;
  }

  static async start(ground: Ground): Promise<StandaloneRuns> {
    const input = await readInput([ground.jobFile, ground.hostFile]);
    const [job] = input.jobs;
    if (!job) throw new Error('there is no job');
    const runs = new StandaloneRuns(
      (onJob) =>
        new Standalone({
          input,
          identity: ground.sshd.privateKeyFile,
          observer: { status: () => undefined, command: () => undefined },
          onJob,
          say: (line) => console.error(line),
        }),
      job,
    );
    await runs.#standalone.connect();
    return runs;
  }

  /** One job, and the removal of its instance. Returns the milliseconds from its creation to its terminal status. */
  async run(name: string): Promise<number> {
    const { store } = this.#standalone;
    const { promise, resolve } = Promise.withResolvers<number>();
    const { promise: gone, resolve: isGone } = Promise.withResolvers<undefined>();
    const started = performance.now();
    this.#onJob = (key) => {
      const job = store.get(key);
      if (!job?.status || !isFinished(job)) return;
      resolve(performance.now() - started);
      if (!job.metadata.finalizers?.length) isGone(undefined);
    };
    const job = store.create({ ...this.#job, metadata: { name, namespace: 'ci' } }, Date.now());
    const took = await promise;
    await gone;
    const ended = store.get(keyOf(job.metadata));
    if (ended?.status?.phase !== 'Succeeded') {
      throw new Error(`the standalone job ended as ${ended?.status?.phase ?? ''}`);
    }
    await store.delete(job);
    return took;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#standalone.close();
  }
}

/** Runs the program itself, from its start to its end: Node, libraries, SSH handshake, job and clean-up. */
export async function wholeProgram({ jobFile, hostFile, sshd }: Ground): Promise<number> {
  const started = performance.now();
  const files = ['-f', jobFile, '--host', hostFile, '--identity', sshd.privateKeyFile];
  await runOk(process.execPath, [program, 'run', '--quiet', ...files]);
  return performance.now() - started;
}
