import { beforeEach, describe, expect, test } from 'vitest';
import { CiJob } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { apiVersion, traceparentAnnotation } from '../../../controller/api/meta.ts';
import { JobTraces } from '../../../controller/cli/job-traces.ts';
import type { Command } from '../../../controller/incus/commands.ts';
import type { CommandOutcome } from '../../../controller/incus/outcome.ts';
import type { CommandEnd, StatusChange } from '../../../controller/reconcile/ports.ts';
import { traceIdOf } from '../../../controller/telemetry/trace-ids.ts';
import type { EndedSpan, Trace, Traces } from '../../../controller/telemetry/traces.ts';

const begin = Date.parse('2026-01-01T12:00:00.000Z');
const at = (milliseconds: number) => new Date(begin + milliseconds).toISOString();

let told: { trace: Trace; span: EndedSpan }[];
let sampled: boolean;
const traces: Traces = {
  trace: (parent) =>
    typeof parent === 'string'
      ? { traceId: parent, parent: undefined, sampled }
      : { traceId: parent.traceId, parent, sampled: parent.sampled },
  tell: (trace, span) => void told.push({ trace, span }),
  close: () => Promise.resolve(),
};
beforeEach(() => {
  told = [];
  sampled = true;
});

/** What a process knows when it has just started. */
const newProcess = () =>
  new JobTraces({ traces, addressOf: (host) => (host === 'build-1' ? '192.0.2.1' : undefined) });

function job(status: CiJobStatus = {}, annotations: Record<string, string> = {}): CiJob {
  return CiJob.parse({
    apiVersion,
    kind: 'CiJob',
    metadata: { name: 'a', namespace: 'ci', uid: 'uid-a', creationTimestamp: at(-500), annotations },
    spec: {
      command: 'echo secret-command',
      env: [{ name: 'TOKEN', value: 'secret-value' }],
      instance: { type: 'Container', image: 'pikaci/dev' },
    },
    status,
  });
}

type Phases = [phase: NonNullable<CiJobStatus['phase']>, startedAt: number, finishedAt?: number][];
function timings(...phases: Phases): NonNullable<CiJobStatus['timings']> {
  return phases.map(([phase, startedAt, finishedAt]) => ({
    phase,
    startedAt: at(startedAt),
    ...(finishedAt === undefined ? {} : { finishedAt: at(finishedAt) }),
  }));
}

const host = { host: 'build-1', attempt: 1 };
const admitted: CiJobStatus = { ...host, timings: timings(['Pending', 0, 10], ['Provisioning', 10]) };
const running: CiJobStatus = {
  ...host,
  timings: timings(['Pending', 0, 10], ['Provisioning', 10, 40], ['Running', 40]),
};
const collecting: CiJobStatus = {
  ...host,
  timings: timings(['Pending', 0, 10], ['Provisioning', 10, 40], ['Running', 40, 90], ['Collecting', 90]),
};
const ended = timings(
  ['Pending', 0, 10],
  ['Provisioning', 10, 40],
  ['Running', 40, 90],
  ['Collecting', 90, 95],
);
const succeeded: CiJobStatus = {
  ...host,
  phase: 'Succeeded',
  exitCode: 0,
  completionTime: at(95),
  timings: ended,
};

const reconcileID = 'a-look';
const change = (
  job: CiJob,
  before: CiJobStatus | undefined,
  after: CiJobStatus,
  stored: boolean,
): StatusChange => ({ job, before, after, stored, reconcileID });
const end = (job: CiJob, command: Command, outcome: CommandOutcome, milliseconds: number): CommandEnd => ({
  job,
  host: 'build-1',
  command,
  outcome,
  milliseconds,
  reconcileID,
});

const names = () => told.map(({ span }) => span.name);
const span = (name: string) => {
  const [one, ...others] = told.filter((each) => each.span.name === name);
  expect([name, others.length]).toEqual([name, 0]);
  return one!.span;
};

describe('the trace of a job', () => {
  test('has a span for its life, and one for each phase below it, told when a stored status ends them', () => {
    const process = newProcess();
    process.status(change(job(), undefined, { ...host, timings: timings(['Pending', 0]) }, true));
    expect(names()).toEqual([]);
    process.status(change(job(), undefined, admitted, true));
    expect(names()).toEqual(['Pending']);
    process.status(change(job(), admitted, running, true));
    expect(names()).toEqual(['Pending', 'Provisioning']);
    process.status(change(job(), running, collecting, false));
    expect(names()).toEqual(['Pending', 'Provisioning']);
    process.status(change(job(), collecting, succeeded, true));
    expect(names()).toEqual(['Pending', 'Provisioning', 'Running', 'Collecting', 'CiJob']);

    const root = span('CiJob');
    expect(root).toMatchObject({ start: begin - 500, end: begin + 95 });
    expect([root.parentId, root.error]).toEqual([undefined, undefined]);
    expect(root.attributes).toEqual({
      'k8s.namespace.name': 'ci',
      'cijob.name': 'a',
      'cijob.uid': 'uid-a',
      'cijob.phase': 'Succeeded',
      'cijob.attempt': 1,
      'cijob.instance.type': 'Container',
      'cijob.host': 'build-1',
      'process.exit.code': 0,
    });
    expect(span('Running')).toMatchObject({ parentId: root.id, start: begin + 40, end: begin + 90 });
    expect(new Set(told.map(({ trace }) => trace.traceId))).toEqual(new Set([traceIdOf('uid-a')]));
    expect(new Set(told.map((one) => one.span.id)).size).toBe(told.length);
  });

  test('begins no later than its first phase, whatever the clock of the API server says', () => {
    const early = { ...succeeded, timings: timings(['Pending', -900, 95]) };
    newProcess().status(change(job(), undefined, early, true));
    expect(span('CiJob').start).toBe(begin - 900);
  });

  test('tells of a failure by its class and reason, never by its message', () => {
    const failure = { class: 'Test', reason: 'CommandFailed', message: 'secret', excerpt: 'secret' } as const;
    const failed: CiJobStatus = { ...succeeded, phase: 'Failed', exitCode: 3, failure };
    newProcess().status(change(job(), undefined, failed, true));
    expect(span('CiJob')).toMatchObject({
      error: 'Test: CommandFailed',
      attributes: {
        'error.type': 'CommandFailed',
        'cijob.failure.class': 'Test',
        'process.exit.code': 3,
      },
    });
    expect(span('Collecting').error).toBe('CommandFailed');
    expect(span('Running').error).toBeUndefined();
    expect(JSON.stringify(told)).not.toContain('secret');
  });

  test('has the phases of an attempt that was lost, the last one to the end of the attempt', () => {
    const process = newProcess();
    process.status(change(job(), undefined, running, true));
    const second: CiJobStatus = {
      attempt: 2,
      attempts: [{ attempt: 1, reason: 'InstanceGone', message: 'secret', finishedAt: at(70) }],
      timings: timings(['Pending', 70]),
    };
    process.status(change(job(), running, second, true));
    expect(span('Running')).toMatchObject({ end: begin + 70, error: 'InstanceGone' });
    const again = { ...succeeded, ...second, host: 'build-2', timings: ended };
    process.status(change(job(), second, again, true));
    const runs = told.filter((one) => one.span.name === 'Running').map((one) => one.span);
    expect(runs.map(({ attributes }) => [attributes['cijob.attempt'], attributes['cijob.host']])).toEqual([
      [1, 'build-1'],
      [2, 'build-2'],
    ]);
    expect(runs[0]!.id).not.toBe(runs[1]!.id);
    expect(span('CiJob').attributes['cijob.attempt']).toBe(2);
  });

  test('counts a phase that comes again as another span', () => {
    const twice = {
      ...succeeded,
      timings: timings(['Running', 0, 5], ['Collecting', 5, 6], ['Running', 6, 9]),
    };
    newProcess().status(change(job(), undefined, twice, true));
    const ids = told.filter((one) => one.span.name === 'Running').map((one) => one.span.id);
    expect(new Set(ids).size).toBe(2);
  });

  test('goes on in the next process: what is told twice has the same ids', () => {
    newProcess().status(change(job(), undefined, running, true));
    const before = [...told];
    told = [];
    newProcess().status(change(job(running), running, succeeded, true));
    expect(names()).toEqual(['Pending', 'Provisioning', 'Running', 'Collecting', 'CiJob']);
    expect(told.slice(0, 2)).toEqual(before);
  });

  test('knows a phase again although one before it passed unseen', () => {
    newProcess().status(change(job(), undefined, succeeded, true));
    const whole = span('Running').id;
    told = [];
    newProcess().status(change(job(), undefined, { ...succeeded, timings: ended.slice(2) }, true));
    expect(span('Running').id).toBe(whole);
  });

  test("is the caller's where the job has a traceparent", () => {
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    const traceparent = { [traceparentAnnotation]: `00-${traceId}-00f067aa0ba902b7-01` };
    newProcess().status(change(job({}, traceparent), undefined, succeeded, true));
    expect(told.map(({ trace }) => trace.traceId)).toEqual(told.map(() => traceId));
    expect(told[0]!.trace.parent).toEqual({ traceId, spanId: '00f067aa0ba902b7', sampled: true });
  });

  test('is its own where the traceparent is malformed', () => {
    newProcess().status(
      change(job({}, { [traceparentAnnotation]: '00-garbage' }), undefined, succeeded, true),
    );
    expect(told[0]!.trace).toMatchObject({ traceId: traceIdOf('uid-a'), parent: undefined });
  });
});

describe('a command to Incus', () => {
  const launch = {
    verb: 'launch',
    instance: 'cijob-1',
    argv: ['env', 'PIKACI_INCUS_GUEST_COMMAND=secret-command'],
    parameters: {},
    environment: new Map([['TOKEN', Buffer.from('secret-value')]]),
  } as const;
  const remove = { verb: 'delete', instance: 'cijob-1', uid: 'uid-a' } as const;

  test('is a client span below the phase in which it began', () => {
    const process = newProcess();
    process.status(change(job(), undefined, running, true));
    // The status has moved on by the time the answer is here.
    process.status(change(job(), running, collecting, false));
    const fields = process.command(end(job(), launch, { kind: 'done' }, 15), begin + 95);
    expect(span('incus launch')).toEqual({
      id: fields.span_id,
      parentId: expect.any(String) as string,
      name: 'incus launch',
      client: true,
      start: begin + 80,
      end: begin + 95,
      attributes: {
        'cijob.host': 'build-1',
        'cijob.instance': 'cijob-1',
        'cijob.attempt': 1,
        'cijob.incus.verb': 'launch',
        'cijob.incus.outcome': 'done',
        'server.address': '192.0.2.1',
      },
    });
    process.status(change(job(), collecting, succeeded, true));
    expect(span('incus launch').parentId).toBe(span('Running').id);
    expect(JSON.stringify(told)).not.toContain('secret');
  });

  test('after the end of the job is a child of the job itself', () => {
    const process = newProcess();
    process.status(change(job(), undefined, succeeded, true));
    process.command({ ...end(job(succeeded), remove, { kind: 'done' }, 5), host: 'local' }, begin + 100);
    expect(span('incus delete').parentId).toBe(span('CiJob').id);
    expect(span('incus delete').attributes['server.address']).toBeUndefined();
  });

  test.each<[CommandOutcome, string | undefined]>([
    [{ kind: 'done' }, undefined],
    [{ kind: 'probed', ready: false }, undefined],
    [{ kind: 'refused', reason: 'ImageNotFound', message: 'secret' }, 'ImageNotFound'],
    [{ kind: 'failed', message: 'secret' }, 'failed'],
    [{ kind: 'unknown', message: 'secret' }, 'unknown'],
  ])('with the outcome %o has the error %s', (outcome, error) => {
    newProcess().command(end(job(running), launch, outcome, 1), begin + 50);
    const { attributes, error: status } = span('incus launch');
    expect([status, attributes['error.type']]).toEqual([error, error]);
    expect(JSON.stringify(told)).not.toContain('secret');
  });

  test('has an id of its own, also when the same is tried again in the same moment', () => {
    const process = newProcess();
    for (let tries = 0; tries < 2; tries += 1)
      process.command(end(job(running), launch, { kind: 'failed', message: '' }, 1), begin + 50);
    expect(told[0]!.span.id).not.toBe(told[1]!.span.id);
  });

  test('shows a new process that a job is over, whose end may never have been told', () => {
    newProcess().command(end(job(succeeded), remove, { kind: 'done' }, 5), begin + 100);
    expect(names()).toEqual(['Pending', 'Provisioning', 'Running', 'Collecting', 'CiJob', 'incus delete']);
  });
});

describe('what is remembered of jobs', () => {
  test('is so much and no more; what was forgotten is told again, as the same spans', () => {
    const process = new JobTraces({ traces, addressOf: () => undefined, maxJobs: 2 });
    const numbered = (number: number) => {
      const one = job();
      return { ...one, metadata: { ...one.metadata, uid: `uid-${number}` } };
    };
    process.status(change(numbered(1), undefined, admitted, true));
    process.status(change(numbered(1), undefined, admitted, true));
    expect(told).toHaveLength(1);
    process.status(change(numbered(2), undefined, admitted, true));
    process.status(change(numbered(3), undefined, admitted, true));
    process.status(change(numbered(1), undefined, admitted, true));
    expect(told).toHaveLength(4);
    expect(told[3]).toEqual(told[0]);
  });
});

describe('what a line of the log carries', () => {
  test('is the trace, and the phase that lasts', () => {
    const process = newProcess();
    expect(process.fields(job())).toEqual({ trace_id: traceIdOf('uid-a') });
    process.status(change(job(), undefined, admitted, true));
    const { span_id: open } = process.fields(job());
    process.status(change(job(), admitted, running, true));
    expect(open).toBe(span('Provisioning').id);
  });

  test('of the metrics: an exemplar refers to a trace only if that is sent', () => {
    expect(newProcess().exemplar(job())).toBe(traceIdOf('uid-a'));
    sampled = false;
    expect(newProcess().exemplar(job())).toBeUndefined();
  });
});
