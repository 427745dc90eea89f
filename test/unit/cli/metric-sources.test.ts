import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import {
  failureClasses,
  phases,
  type CiJobStatus,
  type Phase,
} from '../../../controller/api/cijob-status.ts';
import { addLane } from '../../../controller/cli/lanes.ts';
import { hostMeasures, loopMeasures, metricSources } from '../../../controller/cli/metric-sources.ts';
import { measure } from '../../../controller/cli/observe.ts';
import { Overhead } from '../../../controller/cli/overhead.ts';
import type { Command } from '../../../controller/incus/commands.ts';
import { createMetrics } from '../../../controller/telemetry/metrics.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const hosts = ['build-0', 'build-1', 'build-2'];
const verbs = ['resolve', 'create', 'launch', 'probe', 'collect', 'read', 'stop', 'delete'] as const;
const outcomes = [
  'done',
  'gone',
  'resolved',
  'launched',
  'collected',
  'refused',
  'failed',
  'unknown',
] as const;
const ends = ['Succeeded', ...failureClasses] as const;

/** A controller's metrics, wired as the controller wires them, over jobs that the test tells of. */
class Wired {
  readonly jobs: CiJob[] = [];
  readonly clock = new ManualClock();
  readonly metrics;
  readonly #measures;
  readonly #loop;
  readonly #hosts;

  constructor(lanes: readonly string[]) {
    this.metrics = createMetrics({ version: '1.2.3', lanes });
    this.#measures = { metrics: this.metrics, lanes: new Set(lanes), overhead: new Overhead() };
    this.#loop = loopMeasures(this.metrics);
    this.#hosts = hostMeasures(this.metrics);
    const pool = {
      all: () =>
        hosts.map((name) => ({
          name,
          observedAt: this.clock.now(),
          spec: { capacity: { instances: 4 } } as never,
          state: { kind: 'up' } as never,
        })),
      used: () => this.jobs.length % 5,
    };
    const sources = metricSources({
      clock: this.clock,
      pool,
      jobs: () => this.jobs,
      queue: () => ({ depth: this.jobs.length, unfinishedSeconds: 1 }),
    });
    Object.assign(this.metrics.sources, sources);
  }

  /** The life of one job, from the first look to the last. */
  live(job: CiJob, host: string, end: (typeof ends)[number], random: number): void {
    const instance = { name: `cijob-${job.metadata.uid}` };
    const time = (milliseconds: number) => new Date(this.clock.now() + milliseconds).toISOString();
    const admitted: CiJobStatus = {
      host,
      instance,
      phase: 'Provisioning',
      startTime: time(0),
      conditions: [
        { type: 'Admitted', status: 'True', reason: 'A', message: '', lastTransitionTime: time(0) },
      ],
    };
    const lost = { attempt: 1, host, reason: 'InstanceGone', message: 'gone', finishedAt: time(5) };
    const ran = (['Provisioning', 'Booting', 'Running', 'Collecting'] satisfies Phase[]).map(
      (phase, index) => ({ phase, startedAt: time(index * random), finishedAt: time((index + 1) * random) }),
    );
    const over: CiJobStatus = {
      ...admitted,
      phase: end === 'Succeeded' || end === 'Cancelled' ? end : 'Failed',
      attempts: [lost],
      timings: ran,
      completionTime: time(4 * random),
      ...(end === 'Succeeded' ? {} : { failure: { class: end, reason: 'R', message: job.metadata.name } }),
    };
    measure(this.#measures, job, undefined, admitted);
    const verb = verbs[this.jobs.length % verbs.length] ?? 'create';
    const outcome = outcomes[Math.floor(this.jobs.length / verbs.length) % outcomes.length] ?? 'done';
    this.#measures.overhead.command({ verb, instance: instance.name } as Command, this.clock.now(), 1);
    this.#hosts.command(host, verb, outcome, random / 1000);
    measure(this.#measures, job, admitted, over);
    this.#hosts.eventLag(host, random / 1000);
    this.#loop.queueObserver.added();
    this.#loop.queueObserver.started(random);
    this.#loop.queueObserver.finished(random);
    this.#loop.queueObserver.retried();
    this.#loop.onReconcile(random, random % 2 === 0);
    const phase = phases[this.jobs.length % phases.length];
    this.jobs.push({ ...job, status: { ...over, ...(phase && { phase }) } });
  }

  /** Every series as it is scraped, without its value; what is of Node itself aside. */
  async series(): Promise<string[]> {
    return (await this.metrics.registry.metrics())
      .split('\n')
      .filter((line) => /^(cijob|workqueue|controller_runtime)_/.test(line))
      .map((line) => line.slice(0, line.lastIndexOf(' ')));
  }
}

/** Jobs of which each has a name and a lane of its own, but every tenth; host, end and outcome go round. */
function lives(wired: Wired, count: number): void {
  for (const [index, random] of fc.sample(fc.nat({ max: 9999 }), { numRuns: count, seed: 1 }).entries()) {
    const job = {
      metadata: {
        name: `job-${index}`,
        namespace: `of-${index}`,
        uid: `${index}`,
        generation: 1,
        creationTimestamp: new Date(wired.clock.now() - random).toISOString(),
        labels: { 'ci.pikaci.dev/lane': index % 10 === 0 ? 'unit' : `lane-${index}` },
      },
      spec: { bootTimeoutSeconds: 60, timeoutSeconds: 60, holdOnFailureSeconds: 0 },
    } as unknown as CiJob;
    const host = hosts[Math.floor(index / 64) % hosts.length] ?? '';
    wired.live(job, host, ends[index % ends.length] ?? 'Succeeded', random);
  }
}

describe('the metrics of the controller', () => {
  test('are as many after 10,000 jobs in as many lanes as after a few', async () => {
    const [few, many] = [new Wired(['unit', 'e2e']), new Wired(['unit', 'e2e'])];
    lives(few, 200);
    lives(many, 10_000);
    const series = await many.series();
    expect(series).toEqual(expect.arrayContaining(['cijob_run_seconds_count{lane="unit"}']));
    const known = new Set(await few.series());
    expect(series.filter((one) => !known.has(one)).slice(0, 9)).toEqual([]);
    expect(series).toHaveLength(known.size);
  }, 60_000);

  test('count a job for its lane if that is named, and else for the others', async () => {
    const wired = new Wired(['unit', 'idle']);
    lives(wired, 20);
    const text = await wired.metrics.registry.metrics();
    expect(text).toContain('cijob_run_seconds_count{lane="unit"} 2\n');
    expect(text).toContain('cijob_run_seconds_count{lane="other"} 18\n');
    expect(text).toContain('cijob_queue_seconds_count{lane="unit"} 2\n');
    // Those that have had none yet are there too, or the rate of the first would be lost.
    expect(text).toContain('cijob_finished_total{result="Succeeded",class="None",lane="idle"} 0\n');
    expect(text).toContain('cijob_queue_seconds_count{lane="idle"} 0\n');
    expect(text).toContain('cijob_run_seconds_count{lane="idle"} 0\n');
  });
});

describe('--lane', () => {
  test('takes values that a label can have, fifty at most, each once', () => {
    expect(addLane('unit')).toEqual(['unit']);
    expect(addLane('unit', ['unit', 'e2e'])).toEqual(['unit', 'e2e']);
    for (const bad of ['', '-a', 'a b', 'a"', 'x'.repeat(64)]) {
      expect(() => addLane(bad), bad).toThrow('a value that a label can have');
    }
    const fifty = Array.from({ length: 50 }, (_, index) => `lane-${index}`);
    expect(addLane('lane-0', fifty)).toHaveLength(50);
    expect(() => addLane('one-more', fifty)).toThrow('at most 50');
  });
});
