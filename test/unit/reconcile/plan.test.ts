import { describe, expect, it } from 'vitest';
import { CiJob, type CiJobSpec } from '../../../controller/api/cijob.ts';
import { type CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { findCondition } from '../../../controller/api/conditions.ts';
import { apiVersion, instanceCleanupFinalizer } from '../../../controller/api/meta.ts';
import type { GuestFile } from '../../../controller/incus/client.ts';
import type { InstanceView } from '../../../controller/incus/inventory.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import {
  blankMemory,
  defaultPatience,
  type Memory,
  type Observed,
} from '../../../controller/reconcile/observed.ts';
import { plan } from '../../../controller/reconcile/plan.ts';
import { statusAfter } from '../../../controller/reconcile/status.ts';

const now = Date.parse('2026-01-01T12:00:00Z');
const time = (seconds = 0) => new Date(now + seconds * 1000).toISOString();
const name = instanceName('uid', 1);

function job(
  spec: Partial<CiJobSpec> = {},
  status?: CiJobStatus,
  metadata: Partial<CiJob['metadata']> = {},
): CiJob {
  return CiJob.parse({
    apiVersion,
    kind: 'CiJob',
    metadata: { name: 'job', namespace: 'ci', uid: 'uid', creationTimestamp: time(), ...metadata },
    spec: { command: 'true', instance: { type: 'Container', image: 'image' }, ...spec },
    ...(status ? { status } : {}),
  });
}

function observed(part: Partial<Omit<Observed, 'memory'>> & { memory?: Partial<Memory> } = {}): Observed {
  return {
    controllerId: 'us',
    host: undefined,
    instance: undefined,
    underWay: false,
    runner: 'none',
    strays: [],
    unseen: [],
    admission: undefined,
    hostless: false,
    ...part,
    memory: { ...blankMemory(1), ...part.memory },
  };
}

const up = { kind: 'up', since: now - 1000, storagePool: 'default' } as const;
const down = (seconds: number) =>
  ({ kind: 'down', since: now - seconds * 1000, reason: 'Unreachable', message: 'no route' }) as const;

function instance(part: Partial<InstanceView> = {}): InstanceView {
  return {
    name,
    type: 'container',
    status: 'Running',
    everStarted: true,
    startedAt: now - 1000,
    announcedReady: false,
    labels: { uid: 'uid', attempt: '1', controller: 'us' },
    devices: {},
    settings: {},
    operations: new Set(),
    ...part,
  };
}

/** The job as it is once it was admitted to host `h`; and once its runner was launched, `ago` seconds before now. */
function admitted(spec: Partial<CiJobSpec> = {}, metadata: Partial<CiJob['metadata']> = {}): CiJob {
  const bare = job(spec, undefined, { finalizers: [instanceCleanupFinalizer], ...metadata });
  const status = statusAfter(bare, { admittedTo: 'h', phase: 'Provisioning' }, observed(), now);
  return { ...bare, status };
}
function running(spec: Partial<CiJobSpec> = {}, metadata: Partial<CiJob['metadata']> = {}, ago = 0): CiJob {
  const before = admitted(spec, metadata);
  const claim = { status: 'True', reason: 'RunnerLaunched', message: '' } as const;
  const step = { phase: 'Running', conditions: { RunnerStarted: claim } } as const;
  return { ...before, status: statusAfter(before, step, observed(), now - ago * 1000) };
}

const file = (content: string | Buffer): GuestFile => {
  const bytes = Buffer.from(content);
  return { kind: 'file', size: bytes.length, bytes };
};
const missing: GuestFile = { kind: 'missing' };
const result = (fields: object) =>
  file(JSON.stringify({ schema_version: 1, exit_code: 0, status: 'passed', ...fields }));
const collected = (what: GuestFile, log: GuestFile = file('the log\n')) => ({
  collected: { result: what, log },
});
const exited = { succeeded: true, returnCode: 0, error: '' };

/** Nothing is shown of the instance, and the host, asked for it, says that there is none. */
const goneFrom = (host: Observed['host'], memory: Partial<Memory> = {}) =>
  observed({ host, memory: { gone: name, ...memory } });

const look = (what: CiJob, seen: Observed, at = now) => plan(what, seen, at, defaultPatience);
const verbs = (planned: ReturnType<typeof look>) => planned.commands.map(({ command }) => command.verb);
const outcome = ({ status }: ReturnType<typeof look>) => [
  status.phase,
  status.failure?.class,
  status.failure?.reason,
];

describe('a job without a slot', () => {
  it('asks for one', () => {
    expect(look(job(), observed()).needsSlot).toBe(true);
  });

  it('says why it waits and where it stands', () => {
    const admission = {
      kind: 'waiting',
      reason: 'NoFreeSlot',
      message: 'all full',
      hosts: ['h'],
      position: 3,
      length: 9,
    } as const;
    const { status, finalizer, wakeAt } = look(job(), observed({ admission }));
    expect(findCondition(status.conditions, 'Admitted')).toMatchObject({
      status: 'False',
      reason: 'NoFreeSlot',
      message: 'all full; place 3 of 9 in the queue',
    });
    expect(finalizer).toBe(false);
    expect(wakeAt).toBeGreaterThan(now);
  });

  it('is not admitted while suspended', () => {
    const { needsSlot, status } = look(job({ suspend: true }), observed());
    expect([needsSlot, findCondition(status.conditions, 'Admitted')?.reason]).toEqual([false, 'Suspended']);
  });

  it('takes the slot, under the finalizer, before anything is sent', () => {
    const planned = look(job(), observed({ admission: { kind: 'admitted', host: 'h' } }));
    expect(planned).toMatchObject({
      finalizer: true,
      commands: [],
      status: { host: 'h', attempt: 1, instance: { name } },
    });
  });

  it('fails at once where no host can ever run it', () => {
    const admission = { kind: 'refused', reason: 'InstanceTypeUnsupported', message: 'no KVM' } as const;
    expect(outcome(look(job(), observed({ admission })))).toEqual([
      'Failed',
      'Config',
      'InstanceTypeUnsupported',
    ]);
  });

  it('fails for good, with what its last attempt was lost to, where no host will ever be in reach', () => {
    const admission = {
      kind: 'waiting',
      reason: 'HostUnreachable',
      message: 'h',
      hosts: ['h'],
      position: 1,
      length: 1,
    } as const;
    const before = { attempt: 1, reason: 'HostLost', message: 'no route', finishedAt: time(-60) };
    const status = { phase: 'Pending', attempt: 2, attempts: [before] } as const;
    const retried = job({ infraRetryLimit: 3 }, { ...status, attempts: [before] });
    expect(outcome(look(retried, observed({ admission, hostless: true })))).toEqual([
      'Failed',
      'Infrastructure',
      'HostLost',
    ]);
    expect(outcome(look(job(), observed({ admission, hostless: true })))[2]).toBe('HostUnreachable');
    expect(look(retried, observed({ admission })).status.phase).toBe('Pending');
  });

  it('fails at once where no host may ever take it: its own selector, namespace or drained host are the reason', () => {
    const admission = {
      kind: 'waiting',
      reason: 'NoMatchingHost',
      message: 'no IncusHost has the labels a=b of spec.hostSelector',
      hosts: [],
      position: 1,
      length: 1,
    } as const;
    expect(look(job(), observed({ admission, hostless: true })).status.failure).toMatchObject({
      class: 'Config',
      reason: 'NoMatchingHost',
      message: admission.message,
    });
    expect(look(job(), observed({ admission })).status.phase).toBe('Pending');
  });

  it('fails when its time in the queue is over', () => {
    const full = {
      kind: 'waiting',
      reason: 'NoFreeSlot',
      message: '',
      hosts: ['h'],
      position: 1,
      length: 1,
    } as const;
    const created = job({ queueTimeoutSeconds: 60 });
    const first = look(created, observed({ admission: full }));
    expect(first).toMatchObject({ status: { queuedAt: time() }, wakeAt: now + 60_000 });
    const waits = { ...created, status: first.status };
    expect(outcome(look(waits, observed({ admission: full }), now + 59_999))[0]).toBe('Pending');
    expect(outcome(look(waits, observed({ admission: full }), now + 60_000))).toEqual([
      'Failed',
      'Config',
      'QueueTimeout',
    ]);
    // A slot that is free by now is asked for first, however long nobody looked.
    expect(look(waits, observed(), now + 1e9).needsSlot).toBe(true);
  });

  it('does not wait for a slot while it is suspended: the time counts from when it is resumed', () => {
    const full = {
      kind: 'waiting',
      reason: 'NoFreeSlot',
      message: '',
      hosts: ['h'],
      position: 1,
      length: 1,
    } as const;
    const created = job({ queueTimeoutSeconds: 60 });
    const waits = { ...created, status: look(created, observed({ admission: full })).status };
    const suspended = { ...waits, spec: { ...waits.spec, suspend: true } };
    const paused = look(suspended, observed(), now + 30_000);
    expect(paused.status.queuedAt).toBeUndefined();
    const resumed = { ...waits, status: paused.status };
    expect(look(resumed, observed({ admission: full }), now + 90_000)).toMatchObject({
      status: { phase: 'Pending', queuedAt: new Date(now + 90_000).toISOString() },
      wakeAt: now + 150_000,
    });
  });

  it('is over at once, with nothing to clean up, when cancelled or deleted', () => {
    const planned = look(job({ cancel: true }), observed());
    expect([...outcome(planned), planned.done]).toEqual(['Cancelled', 'Cancelled', 'Cancelled', true]);
    expect(outcome(look(job({}, undefined, { deletionTimestamp: time() }), observed()))[2]).toBe('Deleted');
  });
});

describe('a job with a slot', () => {
  it('resolves, creates, launches, waits, collects: one step at a time', () => {
    const resolved = { fingerprint: 'f', sources: {} };
    expect(verbs(look(admitted(), observed({ host: up })))).toEqual(['resolve']);
    expect(verbs(look(admitted(), observed({ host: up, memory: { resolved } })))).toEqual(['create']);
    expect(verbs(look(admitted(), observed({ host: up, instance: instance() })))).toEqual(['launch']);
    const waits = observed({ host: up, instance: instance(), runner: 'running', memory: { operation: 'o' } });
    expect(verbs(look(running(), waits))).toEqual([]);
    expect(verbs(look(running(), { ...waits, runner: exited }))).toEqual(['collect']);
  });

  it('sends nothing while a command is under way', () => {
    expect(verbs(look(admitted(), observed({ host: up, memory: { inFlight: 'create' } })))).toEqual([]);
  });

  it('waits for what somebody else has begun on its instance', () => {
    const seen = observed({ host: up, underWay: true });
    expect(verbs(look(admitted(), seen))).toEqual([]);
    const planned = look(admitted({ cancel: true }), seen);
    expect([planned.done, planned.status.phase]).toEqual([false, 'Provisioning']);
  });

  it('makes a half-made instance again from the start, and leaves one alone that is being made', () => {
    const half = instance({ status: 'Stopped', everStarted: false });
    expect(verbs(look(admitted(), observed({ host: up, instance: half })))).toEqual(['delete']);
    const making = instance({ ...half, operations: new Set(['o']) });
    expect(verbs(look(admitted(), observed({ host: up, instance: making })))).toEqual([]);
  });

  it('never touches an instance with its name that is not its own', () => {
    const foreign = instance({ labels: { uid: 'other' } });
    const planned = look(admitted(), observed({ host: up, instance: foreign }));
    expect(outcome(planned)).toEqual(['Failed', 'Config', 'InstanceNameTaken']);
    expect(verbs(planned)).toEqual([]);
  });

  it('asks a VM that a new controller finds before it gives it up, and never one that took its launch before', () => {
    const vm = instance({ type: 'virtual-machine', startedAt: now - 3_600_000 });
    const found = observed({ host: up, instance: vm });
    const planned = look(admitted({ infraRetryLimit: 0 }), found);
    expect([verbs(planned), planned.wakeAt]).toEqual([['probe'], now + 1_000]);
    const launched = running({ timeoutSeconds: 7_200 }, {}, 3_590);
    const { conditions = [] } = launched.status ?? {};
    expect(verbs(look(launched, found))).toEqual(['probe']);
    const ready = { ...conditions[0]!, type: 'AgentReady', status: 'True' } as const;
    const took = { ...launched, status: { ...launched.status, conditions: [...conditions, ready] } };
    expect(verbs(look(took, found))).toEqual(['launch']);
  });

  it('probes a booting VM once a second, whatever it answers, until its time is up', () => {
    const vm = instance({ type: 'virtual-machine', startedAt: now });
    const booting = (probedAt?: number) => observed({ host: up, instance: vm, memory: { probedAt } });
    expect(verbs(look(admitted(), booting()))).toEqual(['probe']);
    expect(verbs(look(admitted(), booting(now - 999)))).toEqual([]);
    expect(look(admitted(), booting(now - 999)).wakeAt).toBe(now + 1);
    expect(verbs(look(admitted(), booting(now - 1000)))).toEqual(['probe']);
    const late = look(admitted({ infraRetryLimit: 0 }), booting(now + 119_000), now + 120_000);
    expect(outcome(late)).toEqual(['Failed', 'Infrastructure', 'AgentNotReady']);
  });
});

describe('the outcome', () => {
  const ends = (memory: Partial<Memory>, spec: Partial<CiJobSpec> = {}) =>
    look(
      running({ infraRetryLimit: 0, ...spec }),
      observed({ host: up, instance: instance(), runner: exited, memory }),
    );

  it.each([
    ['passed', result({}), ['Succeeded', undefined, undefined]],
    ['failed', result({ status: 'failed', exit_code: 3 }), ['Failed', 'Test', 'NonZeroExitCode']],
    [
      'timed out',
      result({ status: 'failed', exit_code: 124, timed_out: true }),
      ['Failed', 'Timeout', 'DeadlineExceeded'],
    ],
    [
      'bootstrap error',
      result({ status: 'failed', exit_code: 2, bootstrap_error: 'no mount' }),
      ['Failed', 'Infrastructure', 'BootstrapFailed'],
    ],
    ['garbled', file('{"schema'), ['Failed', 'Infrastructure', 'ResultInvalid']],
    ['of another version', result({ schema_version: 2 }), ['Failed', 'Infrastructure', 'ResultInvalid']],
    [
      'with an impossible exit code',
      result({ exit_code: 256 }),
      ['Failed', 'Infrastructure', 'ResultInvalid'],
    ],
    [
      'huge',
      { kind: 'file', size: 1e9, bytes: Buffer.alloc(65_536) },
      ['Failed', 'Infrastructure', 'ResultInvalid'],
    ],
    ['a symlink', { kind: 'unreadable', what: 'symlink' }, ['Failed', 'Infrastructure', 'ResultInvalid']],
  ] as [string, GuestFile, unknown[]][])('of a result that is %s', (_what, what, expected) => {
    expect(outcome(ends(collected(what)))).toEqual(expected);
  });

  it('of no result at all is never success: launch once more, then say that the runner vanished', () => {
    for (const none of [missing, file('')]) {
      expect(verbs(ends({ ...collected(none), launches: 1 }))).toEqual(['launch']);
    }
    expect(outcome(ends({ ...collected(missing), launches: 2 }))).toEqual([
      'Failed',
      'Infrastructure',
      'RunnerVanished',
    ]);
  });

  it('of an instance that is gone or stopped is the infrastructure', () => {
    const gone = look(running({ infraRetryLimit: 0 }), goneFrom(up));
    expect(outcome(gone)).toEqual(['Failed', 'Infrastructure', 'InstanceGone']);
    const stopped = observed({
      host: up,
      instance: instance({ status: 'Stopped' }),
      memory: collected(missing),
    });
    expect(outcome(look(running({ infraRetryLimit: 0 }), stopped))).toEqual([
      'Failed',
      'Infrastructure',
      'InstanceStopped',
    ]);
  });

  it('is not guessed from a list that shows no instance: the host is asked for it', () => {
    const unseen = look(running({ infraRetryLimit: 0 }), observed({ host: up }));
    expect(verbs(unseen)).toEqual(['read']);
    expect(outcome(unseen)).toEqual(['Running', undefined, undefined]);
    const another = look(running({ infraRetryLimit: 0 }), goneFrom(up, { gone: 'of an earlier attempt' }));
    expect(verbs(another)).toEqual(['read']);
    const problem = {
      verb: 'read',
      outcome: { kind: 'unknown', message: 'no answer' },
      count: 5,
      since: now,
      at: now,
    } as const;
    const unanswered = look(running({ infraRetryLimit: 0 }), observed({ host: up, memory: { problem } }));
    expect(outcome(unanswered)).toEqual(['Failed', 'Infrastructure', 'InstanceGone']);
    expect(verbs(look(running({ cancel: true }), observed({ host: up })))).toEqual(['read']);
  });

  it.each(['ImageNotFound', 'SourceNotAllowed', 'ProfileNotFound'])(
    'of a refused resolve (%s) is Config',
    (reason) => {
      const problem = {
        verb: 'resolve',
        outcome: { kind: 'refused', reason, message: '' },
        count: 1,
        since: now,
        at: now,
      } as const;
      expect(outcome(look(admitted(), observed({ host: up, memory: { problem } })))).toEqual([
        'Failed',
        'Config',
        reason,
      ]);
    },
  );

  it('of a host out of sight is not known until the grace is over', () => {
    const waits = look(running(), observed({ host: down(599) }));
    expect(findCondition(waits.status.conditions, 'Ready')).toMatchObject({
      status: 'Unknown',
      reason: 'HostUnreachable',
    });
    expect([waits.commands, waits.wakeAt]).toEqual([[], now + 1000]);
    expect(outcome(look(running({ infraRetryLimit: 0 }), observed({ host: down(600) })))).toEqual([
      'Failed',
      'Infrastructure',
      'HostLost',
    ]);
  });

  it('of a cancelled job: what the guest still tells first, then stop and delete, then Cancelled', () => {
    const cancelled = running({ cancel: true });
    const there = { host: up, instance: instance(), runner: 'running' } as const;
    expect(verbs(look(cancelled, observed(there)))).toEqual(['collect']);
    expect(verbs(look(cancelled, observed({ ...there, memory: collected(missing) })))).toEqual([
      'stop',
      'delete',
    ]);
    const planned = look(cancelled, goneFrom(up, collected(missing)));
    expect([...outcome(planned), planned.done]).toEqual(['Cancelled', 'Cancelled', 'Cancelled', true]);
    // It had ended before anybody called it off.
    expect(outcome(look(cancelled, goneFrom(up, collected(result({})))))[0]).toBe('Succeeded');
    const garbled: GuestFile = { kind: 'unreadable', what: 'symlink' };
    expect(outcome(look(cancelled, goneFrom(up, collected(garbled))))[0]).toBe('Cancelled');
  });

  it('carries the end of the log as text of at most 4 KiB, whatever bytes the guest wrote', () => {
    const bytes = Buffer.concat([Buffer.alloc(5000, 0xff), Buffer.from('\0the end é')]);
    const { status } = ends(collected(result({ status: 'failed', exit_code: 1 }), file(bytes)));
    const excerpt = status.failure?.excerpt ?? '';
    expect(Buffer.byteLength(excerpt)).toBeLessThanOrEqual(4096);
    expect(excerpt.endsWith('the end é')).toBe(true);
    expect(excerpt).not.toContain('\0');
  });
});

describe('after the infrastructure failed', () => {
  it('a new attempt comes, after a pause that doubles, and the old one is told in the history', () => {
    const lost = look(running({ infraRetryLimit: 2 }), goneFrom(up));
    expect(lost.status).toMatchObject({
      phase: 'Pending',
      attempt: 2,
      attempts: [{ attempt: 1, host: 'h', reason: 'InstanceGone' }],
    });
    expect(lost.status.host).toBeUndefined();
    const next = { ...running({ infraRetryLimit: 2 }), status: lost.status };
    expect(look(next, observed(), now + 4_999)).toMatchObject({ needsSlot: false, wakeAt: now + 5_000 });
    expect(look(next, observed(), now + 5_000).needsSlot).toBe(true);
  });

  it('a command that failed or timed out is never run again', () => {
    const seen = observed({
      host: up,
      instance: instance(),
      memory: collected(result({ status: 'failed', exit_code: 1 })),
    });
    expect(outcome(look(running({ infraRetryLimit: 10 }), seen))).toEqual([
      'Failed',
      'Test',
      'NonZeroExitCode',
    ]);
  });
});

describe('a job that is over', () => {
  const finished = (spec: Partial<CiJobSpec>, what = result({ status: 'failed', exit_code: 1 })) => {
    const before = running(spec);
    const { status } = look(
      before,
      observed({ host: up, instance: instance(), runner: exited, memory: collected(what) }),
    );
    return { ...before, status };
  };

  it('has its instance taken away, and is let go of when that is seen', () => {
    expect(verbs(look(finished({}), observed({ host: up, instance: instance() })))).toEqual([
      'stop',
      'delete',
    ]);
    expect(verbs(look(finished({}), observed({ host: up })))).toEqual(['read']);
    expect(look(finished({}), goneFrom(up))).toMatchObject({
      done: true,
      finalizer: false,
      commands: [],
    });
  });

  it('keeps a failed instance for as long as it was asked to, and never that of one that passed', () => {
    const held = look(finished({ holdOnFailureSeconds: 60 }), observed({ host: up, instance: instance() }));
    expect(held).toMatchObject({ commands: [], done: false, wakeAt: now + 60_000 });
    const seen = observed({ host: up, instance: instance() });
    expect(verbs(look(finished({ holdOnFailureSeconds: 60 }), seen, now + 60_000))).toEqual([
      'stop',
      'delete',
    ]);
    expect(verbs(look(finished({ holdOnFailureSeconds: 60 }, result({})), seen))).toEqual(['stop', 'delete']);
  });

  it('keeps its finalizer while a host that may have its instance is out of sight', () => {
    expect(look(finished({}), observed({ host: down(1) }))).toMatchObject({ done: false, finalizer: true });
    // What was seen gone before does not come back.
    expect(look(finished({}), goneFrom(down(1)))).toMatchObject({ done: true, finalizer: false });
  });

  it('is deleted once its ttl is over, and asks for no further look after that', () => {
    const old = finished({ ttlSecondsAfterFinished: 30 });
    expect(look(old, goneFrom(up), now + 29_999)).toMatchObject({
      expired: false,
      wakeAt: now + 30_000,
    });
    const expired = look(old, goneFrom(up), now + 30_000);
    expect([expired.expired, expired.wakeAt]).toEqual([true, undefined]);
  });

  it('shows the same status for ever', () => {
    const over = finished({});
    for (const seen of [observed({ host: up }), observed({ host: up, instance: instance() })])
      expect(look(over, seen, now + 1e9).status.conditions).toEqual(over.status.conditions);
  });
});
