import { beforeEach, describe, expect, it } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import type { Condition } from '../../../controller/api/conditions.ts';
import { hostLog, measure, type JobMeasures } from '../../../controller/cli/observe.ts';
import { Overhead } from '../../../controller/cli/overhead.ts';
import type { HostState } from '../../../controller/hosts/host.ts';
import type { Logger } from '../../../controller/telemetry/log.ts';
import { createMetrics } from '../../../controller/telemetry/metrics.ts';

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
  let measures: JobMeasures;
  beforeEach(() => {
    measures = {
      metrics: createMetrics({ version: 'test' }),
      lanes: new Set(['unit']),
      overhead: new Overhead(),
    };
  });

  /** The sums and counts that are not zero, without what was counted of the process itself. */
  async function counted(): Promise<Record<string, number>> {
    const lines = (await measures.metrics.registry.metrics()).split('\n');
    const samples = lines.flatMap((line) => {
      const [, name = '', value] =
        /^cijob_((?:[a-z]+)_(?:seconds_sum|seconds_count|total)\S*) (\S+)$/.exec(line) ?? [];
      return value === undefined || value === '0' ? [] : [[name, Number(value)] as const];
    });
    return Object.fromEntries(samples);
  }
  const once = (part: string, seconds: number, labels = '') => ({
    [`${part}_seconds_sum${labels}`]: seconds,
    [`${part}_seconds_count${labels}`]: 1,
  });
  const other = '{lane="other"}';

  it('is the time in the queue, when it is admitted for the first time', async () => {
    measure(measures, job, undefined, { phase: 'Pending' });
    measure(measures, job, { phase: 'Pending' }, admitted);
    measure(measures, job, admitted, admitted);
    measure(measures, job, lost, { ...lost, conditions: [admittedAt(60)] });
    expect(await counted()).toEqual(once('queue', 3, other));
  });

  it('is each attempt that was lost, by the reason', async () => {
    measure(measures, job, admitted, lost);
    measure(measures, job, lost, lost);
    expect(await counted()).toEqual({ 'retries_total{reason="HostLost"}': 1 });
  });

  it('is the outcome, and where the time went, once', async () => {
    measure(measures, job, { ...finished, completionTime: undefined }, finished);
    measure(measures, job, finished, finished);
    expect(await counted()).toMatchObject({
      'finished_total{result="Succeeded",class="None",lane="other"}': 1,
      ...once('provision', 2),
      ...once('run', 20, other),
      ...once('collect', 1),
    });
    expect(await counted()).not.toHaveProperty('boot_seconds_count');
  });

  it('is a failure by its class, also of a job that never ran', async () => {
    const failure = { class: 'Config', reason: 'ImageNotFound', message: '' } as const;
    measure(measures, job, undefined, { phase: 'Failed', completionTime: at(1), failure });
    expect(await counted()).toEqual({ 'finished_total{result="Failed",class="Config",lane="other"}': 1 });
  });

  it('is never less than nothing, whatever the clocks say', async () => {
    const before = { ...finished, startTime: at(30), completionTime: undefined };
    measure(measures, { metadata: { creationTimestamp: at(99) } } as CiJob, undefined, admitted);
    measure(measures, job, before, { ...finished, startTime: at(30) });
    expect(await counted()).toMatchObject({ 'queue_seconds_count{lane="other"}': 1 });
    expect(Object.values(await counted()).every((value) => value > 0)).toBe(true);
  });
});

it('a host that is looked at again and again is told of once, and again when it has come or gone', () => {
  const said: string[] = [];
  const say = (fields: object, msg: string) => void said.push(`${msg} ${JSON.stringify(fields)}`);
  const tell = hostLog({ info: say, warn: say } as unknown as Logger);
  const up = (since: number): HostState => ({
    ...{ kind: 'up', since, version: '6.0', instanceTypes: [], project: {} },
  });
  const down: HostState = { kind: 'down', since: 2, reason: 'Unreachable', message: 'no route' };
  for (const state of [up(1), up(1), down, down, { ...down, message: 'refused' }, up(3), up(3), undefined]) {
    tell('build-1', state);
  }
  tell('build-2', up(3));
  expect(said).toEqual([
    'host connected {"host":"build-1","version":"6.0"}',
    'host not connected {"host":"build-1","reason":"Unreachable","why":"no route"}',
    'host not connected {"host":"build-1","reason":"Unreachable","why":"refused"}',
    'host connected {"host":"build-1","version":"6.0"}',
    'host connected {"host":"build-2","version":"6.0"}',
  ]);
});
