import { beforeEach, describe, expect, it } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import type { Condition } from '../../../controller/api/conditions.ts';
import { measure } from '../../../controller/cli/observe.ts';
import { createMetrics, type Metrics } from '../../../controller/telemetry/metrics.ts';

const at = (seconds: number) => new Date(Date.parse('2026-01-01T00:00:00Z') + seconds * 1000).toISOString();
const job = { metadata: { name: 'a', creationTimestamp: at(0) } } as CiJob;
const admittedAt = (seconds: number): Condition => ({
  type: 'Admitted',
  status: 'True',
  reason: 'SlotGranted',
  message: '',
  lastTransitionTime: at(seconds),
});
const admitted: CiJobStatus = { phase: 'Provisioning', startTime: at(3), conditions: [admittedAt(3)] };
const timings: CiJobStatus['timings'] = [
  { phase: 'Provisioning', startedAt: at(3), finishedAt: at(5) },
  { phase: 'Running', startedAt: at(5), finishedAt: at(25) },
  { phase: 'Collecting', startedAt: at(25), finishedAt: at(26) },
];
const finished: CiJobStatus = { ...admitted, phase: 'Succeeded', completionTime: at(26), timings };
const lost: CiJobStatus = {
  phase: 'Pending',
  startTime: at(3),
  attempts: [{ attempt: 1, reason: 'HostLost', message: '', finishedAt: at(9) }],
};

describe('what a change of status counts', () => {
  let metrics: Metrics;
  beforeEach(() => {
    metrics = createMetrics({ version: 'test' });
  });

  /** The sums and counts that are not zero, without what was counted of the process itself. */
  async function counted(): Promise<Record<string, number>> {
    const lines = (await metrics.registry.metrics()).split('\n');
    const samples = lines.flatMap((line) => {
      const [, name = '', value] =
        /^cijob_((?:[a-z]+)_(?:seconds_sum|seconds_count|total)\S*) (\S+)$/.exec(line) ?? [];
      return value === undefined || value === '0' ? [] : [[name, Number(value)] as const];
    });
    return Object.fromEntries(samples);
  }
  const once = (part: string, seconds: number) => ({
    [`${part}_seconds_sum`]: seconds,
    [`${part}_seconds_count`]: 1,
  });

  it('is the time in the queue, when it is admitted for the first time', async () => {
    measure(metrics, job, undefined, { phase: 'Pending' });
    measure(metrics, job, { phase: 'Pending' }, admitted);
    measure(metrics, job, admitted, admitted);
    measure(metrics, job, lost, { ...lost, conditions: [admittedAt(60)] });
    expect(await counted()).toEqual(once('queue', 3));
  });

  it('is each attempt that was lost, by the reason', async () => {
    measure(metrics, job, admitted, lost);
    measure(metrics, job, lost, lost);
    expect(await counted()).toEqual({ 'retries_total{reason="HostLost"}': 1 });
  });

  it('is the outcome, and where the time went, once', async () => {
    measure(metrics, job, { ...finished, completionTime: undefined }, finished);
    measure(metrics, job, finished, finished);
    expect(await counted()).toMatchObject({
      'finished_total{result="Succeeded",class="None"}': 1,
      ...once('provision', 2),
      ...once('run', 20),
      ...once('collect', 1),
      // 23 s since it was admitted, 20 of which were its own.
      ...once('overhead', 3),
    });
    expect(await counted()).not.toHaveProperty('boot_seconds_count');
  });

  it('is a failure by its class, also of a job that never ran', async () => {
    const failure = { class: 'Config', reason: 'ImageNotFound', message: '' } as const;
    measure(metrics, job, undefined, { phase: 'Failed', completionTime: at(1), failure });
    expect(await counted()).toEqual({ 'finished_total{result="Failed",class="Config"}': 1 });
  });

  it('is never less than nothing, whatever the clocks say', async () => {
    const before = { ...finished, startTime: at(30), completionTime: undefined };
    measure(metrics, { metadata: { creationTimestamp: at(99) } } as CiJob, undefined, admitted);
    measure(metrics, job, before, { ...finished, startTime: at(30) });
    expect(await counted()).toMatchObject({ queue_seconds_count: 1, overhead_seconds_count: 1 });
    expect(Object.values(await counted()).every((value) => value > 0)).toBe(true);
  });
});
