import { describe, expect, it } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import type { GuestFile } from '../../../controller/incus/client.ts';
import type { Verb } from '../../../controller/incus/commands.ts';
import { partingTime, planAttempt } from '../../../controller/reconcile/attempt.ts';
import { defaultPatience, type Observed, type Problem } from '../../../controller/reconcile/observed.ts';
import { admitted, anInstance, name, now, running, seen } from './fixtures.ts';

const file = (text: string): GuestFile => ({ kind: 'file', size: text.length, bytes: Buffer.from(text) });
const passed = file(JSON.stringify({ schema_version: 1, status: 'passed', exit_code: 0 }));
const collected = (result: GuestFile) => ({ collected: { result, log: file('the log\n') } });
const nothing = collected({ kind: 'missing' });
const failed = (verb: Verb, count = 1, message = 'busy'): { problem: Problem } => ({
  problem: { verb, outcome: { kind: 'failed', message }, count, since: now, at: now },
});
const refused = (verb: Verb): { problem: Problem } => ({
  problem: {
    verb,
    outcome: { kind: 'refused', reason: 'IncusRefused', message: 'no' },
    count: 1,
    since: now,
    at: now,
  },
});
const down = (seconds: number) =>
  ({ kind: 'down', since: now - seconds * 1000, reason: 'Unreachable', message: 'no route' }) as const;
const resolved = { resolved: { fingerprint: 'f'.repeat(64), sources: {} } };
const limit = 600_000 + defaultPatience.deadlineSlack;

/** What is done next, `after` milliseconds from now. */
function next(job: CiJob, observed: Observed, after = 0) {
  const {
    verdict,
    commands = [],
    wakeAt,
    ...step
  } = planAttempt(job, observed, now + after, defaultPatience);
  return {
    ...step,
    verbs: commands.map(({ host, command }) => `${command.verb} on ${host}`),
    wakesAfter: wakeAt === undefined ? undefined : wakeAt - now,
    verdict: verdict && (verdict.passed ? 'passed' : `${verdict.class} ${verdict.reason}`),
    message: verdict?.passed === false ? verdict.message : undefined,
  };
}

describe('a command that does not work', () => {
  it('is tried again after a pause that doubles, and given up after five tries', () => {
    const tried = (count: number, after: number) =>
      next(admitted(), seen({ memory: failed('resolve', count) }), after);
    for (const [index, pause] of [1000, 2000, 4000, 8000].entries()) {
      expect(tried(index + 1, pause - 1)).toMatchObject({ verbs: [], wakesAfter: pause });
      expect(tried(index + 1, pause).verbs).toEqual(['resolve on h']);
    }
    expect(tried(5, 0)).toMatchObject({ verdict: 'Infrastructure CreateFailed', message: 'busy' });
  });

  it('does not hold up another one', () => {
    const observed = seen({ instance: anInstance(), memory: failed('probe', 5) });
    expect(next(admitted(), observed).verbs).toEqual(['launch on h']);
  });

  it('is the end of the attempt at once where Incus failed to create: another host may be luckier', () => {
    const observed = (kind: 'failed' | 'unknown') =>
      seen({
        memory: {
          ...resolved,
          problem: { ...failed('create').problem, outcome: { kind, message: 'disk full' } },
        },
      });
    expect(next(admitted(), observed('failed'))).toMatchObject({
      verdict: 'Infrastructure CreateFailed',
      message: 'disk full',
    });
    expect(next(admitted(), observed('unknown'), 1000).verbs).toEqual(['create on h']);
  });

  it('is the end of the attempt, in Incus’s words, where the instance that was made did not start', () => {
    const outcome = { kind: 'failed', reason: 'StartFailed', message: 'no such device' } as const;
    const problem = { ...failed('create').problem, outcome };
    for (const everStarted of [true, false]) {
      const instance = anInstance({ status: 'Stopped', everStarted });
      expect(next(admitted(), seen({ instance, memory: { problem } }))).toMatchObject({
        verbs: [],
        verdict: 'Infrastructure StartFailed',
        message: 'no such device',
      });
    }
  });

  it('is the manifest’s fault where what was asked for is refused', () => {
    for (const verb of ['resolve', 'create', 'stop', 'delete'] as const) {
      expect(next(admitted(), seen({ memory: refused(verb) })).verdict).toBe('Config IncusRefused');
    }
    // A controller that is new finds that a Secret of a job that runs is gone: it cannot be attached to any more.
    const there = { instance: anInstance(), memory: refused('launch') };
    expect(next(running(), seen(there)).verdict).toBe('Config IncusRefused');
  });
});

describe('a host out of sight', () => {
  it('is not worth a word for ten seconds, then the job says so, and after the grace the attempt is lost', () => {
    const after = (seconds: number) => next(running(), seen({ host: down(0) }), seconds * 1000);
    expect(after(9.999)).toEqual({ verbs: [], wakesAfter: 10_000 });
    expect(after(10)).toMatchObject({ wakesAfter: 600_000, verdict: undefined });
    expect(after(10).blocked?.message).toBe("host h is unreachable, and the job's state unknown: no route");
    expect(after(600)).toMatchObject({
      verdict: 'Infrastructure HostLost',
      message: 'host h was unreachable for 600 s: no route',
    });
  });

  it('is not waited for longer than its grace, however short that is', () => {
    const patience = { ...defaultPatience, hostGrace: 2_000 };
    const step = planAttempt(running(), seen({ host: down(2) }), now, patience);
    expect(step.verdict).toMatchObject({ reason: 'HostLost' });
  });

  it('is not waited for as long once the job was called off', () => {
    const patience = { ...defaultPatience, cancelGrace: 2_000 };
    const step = planAttempt(running({ cancel: true }), seen({ host: down(2) }), now, patience);
    expect(step.verdict).toMatchObject({ class: 'Cancelled' });
    expect(planAttempt(running(), seen({ host: down(2) }), now, patience).verdict).toBeUndefined();
  });

  it('does not make a job that was called off an infrastructure failure', () => {
    const lost = seen({ host: down(600) });
    expect(next(running({ cancel: true }), lost)).toMatchObject({
      verdict: 'Cancelled Cancelled',
      message: 'spec.cancel was set',
    });
  });
});

describe('an instance that does not run', () => {
  const stopped = anInstance({ status: 'Stopped' });

  it('is read once more before it is given up, and its result stands', () => {
    const observed = (memory: Observed['memory'] | object) => seen({ instance: stopped, memory });
    expect(next(running(), observed({})).verbs).toEqual(['collect on h']);
    expect(next(running(), observed(collected(passed))).verdict).toBe('passed');
    expect(next(running(), observed(nothing)).verdict).toBe('Infrastructure InstanceStopped');
    // A stopped VM has no agent that could read a file.
    expect(next(running(), observed(failed('collect'))).verdict).toBe('Infrastructure InstanceStopped');
  });

  it('says why it did not start, if it never took the command, whoever made it and did not hear of it', () => {
    const log = { collected: { ...nothing.collected, startErrors: 'no such device' } };
    const observed = (memory: object) => seen({ instance: stopped, memory });
    expect(next(admitted(), observed({})).verbs).toEqual(['collect on h']);
    expect(next(admitted(), observed(log))).toMatchObject({
      verdict: 'Infrastructure StartFailed',
      message: 'no such device',
    });
    expect(next(admitted(), observed(nothing))).toMatchObject({
      verdict: 'Infrastructure InstanceStopped',
      message: 'the instance stopped before its command was launched',
    });
    expect(next(running(), observed(log)).verdict).toBe('Infrastructure InstanceStopped');
  });

  it('is left to what is being done to it', () => {
    const busy = seen({ instance: { ...stopped, operations: new Set(['o']) } });
    const asked = seen({ instance: stopped, memory: { inFlight: 'create' } });
    for (const observed of [busy, asked]) {
      expect(next(admitted(), observed)).toMatchObject({
        phase: 'Provisioning',
        verbs: [],
        verdict: undefined,
      });
    }
  });

  it('may go on when it is paused, or Incus cannot tell, until its time is up', () => {
    for (const status of ['Frozen', 'Other'] as const) {
      const paused = seen({ instance: anInstance({ status }), memory: { launchedAt: now } });
      expect(next(running({ timeoutSeconds: 600 }), paused)).toMatchObject({ verbs: [], wakesAfter: limit });
      expect(next(running({ timeoutSeconds: 600 }), paused, limit).verbs).toEqual(['collect on h']);
    }
  });
});

describe('a guest', () => {
  const vm = (part: object = {}) => anInstance({ type: 'virtual-machine', ...part });

  it.each([
    ['a container, at once', { instance: anInstance() }],
    ['a VM that announced itself', { instance: vm({ announcedReady: true }) }],
    ['a VM whose agent has answered', { instance: vm(), memory: { agentAnswered: true } }],
  ])('that takes commands has its runner launched: %s', (_what, part) => {
    const step = next(admitted(), seen(part));
    expect(step.verbs).toEqual(['launch on h']);
    expect(Object.keys(step.conditions ?? {})).toEqual([
      'DevicesConfigured',
      'Started',
      'AgentReady',
      'RunnerStarted',
    ]);
  });

  it('that has a runner needs no probe, whatever its agent says now', () => {
    expect(next(running(), seen({ instance: vm(), runner: 'running' })).phase).toBe('Running');
    expect(next(admitted(), seen({ instance: vm(), runner: 'running' })).phase).toBe('Booting');
  });

  it('that boots says no more than that it has started', () => {
    const step = next(admitted(), seen({ instance: vm() }));
    expect([step.phase, Object.keys(step.conditions ?? {})]).toEqual([
      'Booting',
      ['DevicesConfigured', 'Started'],
    ]);
  });

  it('has its whole time to boot, also where the host’s clock is ahead of ours', () => {
    const job = admitted({ bootTimeoutSeconds: 30 });
    const ahead = seen({ instance: vm({ startedAt: now + 3600_000 }), memory: { probedAt: now } });
    expect(next(job, ahead)).toMatchObject({ verdict: undefined, wakesAfter: 1000 });
    const booting = seen({ instance: vm(), memory: { probedAt: now + 29_500 } });
    expect(next(job, booting, 29_999)).toMatchObject({ verdict: undefined, wakesAfter: 30_000 });
    expect(next(job, booting, 30_000).verdict).toBe('Infrastructure AgentNotReady');
    // It was asked in time, and waits for its turn or for its answer.
    const asked = seen({ instance: vm(), memory: { probedAt: now + 29_500, inFlight: 'probe' } });
    expect(next(job, asked, 40_000)).toMatchObject({ verdict: undefined, phase: 'Booting' });
  });

  it('whose runner nobody knows of any more is sent the launch again, which attaches', () => {
    const observed = seen({
      instance: anInstance(),
      runner: 'lost',
      memory: { operation: 'o', launches: 9 },
    });
    expect(next(running(), observed).verbs).toEqual(['launch on h']);
  });
});

describe('a runner that ended without a result', () => {
  const ended = (returnCode: number | undefined, memory: object = nothing) =>
    next(
      running(),
      seen({
        instance: anInstance(),
        runner: { succeeded: true, returnCode, error: '' },
        memory: { operation: 'o', launches: 2, ...memory },
      }),
    );

  it.each([
    [127, 'RunnerNotFound'],
    [126, 'RunnerNotExecutable'],
  ])('with the code %i is the fault of the image: %s', (code, reason) => {
    expect(ended(code).verdict).toBe(`Config ${reason}`);
  });

  it.each([0, 1, 125, 128, undefined])('vanished, if the code is %s: that is never success', (code) => {
    expect(ended(code)).toMatchObject({ verdict: 'Infrastructure RunnerVanished' });
    expect(ended(code).message).toContain(`(code ${code ?? 'unknown'})`);
  });

  it('is not believed before its files were read, and given up when they never can be', () => {
    expect(ended(0, {}).verbs).toEqual(['collect on h']);
    expect(ended(0, failed('collect', 7)).verdict).toBeUndefined();
    expect(ended(0, failed('collect', 8)).verdict).toBe('Infrastructure ResultUnreadable');
  });

  it('is given up after two minutes of tries, however few there were', () => {
    const since = (seconds: number) => {
      const { problem } = failed('collect', 3);
      return ended(0, { problem: { ...problem, since: now - seconds * 1000 } });
    };
    expect(since(119).verdict).toBeUndefined();
    expect(since(120).verdict).toBe('Infrastructure ResultUnreadable');
  });
});

describe('what a runner left', () => {
  const job = running({ artifacts: ['*'], timeoutSeconds: 600 });
  const collect = (observed: Observed, off = job, after = 0) =>
    planAttempt(off, observed, now + after, defaultPatience).commands?.[0]?.command;
  const ended = { instance: anInstance(), runner: { succeeded: true, returnCode: 0, error: '' } };

  it('is read whole, and from the fourth try on the result is enough', () => {
    const all = { verb: 'collect', instance: name, artifacts: ['*'] };
    expect(collect(seen(ended))).toEqual(all);
    expect(collect(seen({ ...ended, memory: failed('collect', 2) }), job, 2_000)).toEqual(all);
    const fourth = seen({ ...ended, memory: failed('collect', 3) });
    expect(collect(fourth, job, 4_000)).toEqual({ ...all, resultOnly: true });
  });

  it('is read once where the instance has stopped, and where the job is called off in little time', () => {
    const stopped = seen({ instance: anInstance({ status: 'Stopped' }) });
    expect(collect(stopped)).toMatchObject({ artifacts: ['*'], resultOnly: true });
    const off = (how: object) => collect(seen(ended), { ...job, ...how });
    const little = { resultOnly: true, withinMs: 15_000 };
    expect(off({ spec: { ...job.spec, cancel: true } })).toMatchObject({ artifacts: ['*'], ...little });
    const metadata = { ...job.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' };
    expect(off({ metadata })).toMatchObject({ artifacts: [], ...little });
  });

  it('and cannot be read is the job’s timeout where its runner has not ended in its time', () => {
    const observed = seen({ instance: anInstance(), runner: 'running', memory: failed('collect', 8) });
    expect(next(job, observed, limit)).toMatchObject({ verdict: 'Timeout HostDeadlineExceeded' });
  });
});

describe('a job that is called off while its instance is there', () => {
  const there = (part: object = {}, memory: object = {}) => seen({ instance: anInstance(part), memory });

  it('is not read if it never ran anything', () => {
    expect(next(admitted({ cancel: true }), there())).toMatchObject({
      verbs: ['stop on h', 'delete on h'],
      wakesAfter: 1000,
    });
  });

  it('is not stopped if it does not run', () => {
    expect(next(admitted({ cancel: true }), there({ status: 'Stopped' })).verbs).toEqual(['delete on h']);
  });

  it('is taken away also when it cannot be read', () => {
    expect(next(running({ cancel: true }), there()).verbs).toEqual(['collect on h']);
    const unreadable = there({}, failed('collect'));
    expect(next(running({ cancel: true }), unreadable).verbs).toEqual(['stop on h', 'delete on h']);
  });

  it('waits for the command that is under way', () => {
    expect(next(running({ cancel: true }), there({}, { inFlight: 'launch' }))).toMatchObject({
      verbs: [],
      verdict: undefined,
    });
  });

  it('has what is in the guest’s hands cut short, a collect after a while, and nothing else', () => {
    const cut = (inFlight: Verb) => next(running({ cancel: true }), there({}, { inFlight })).cutShortIn;
    expect([cut('collect'), cut('launch'), cut('probe')]).toEqual([partingTime, 0, 0]);
    expect([cut('create'), cut('stop'), cut('delete')]).toEqual([undefined, undefined, undefined]);
    expect(next(running(), there({}, { inFlight: 'collect' })).cutShortIn).toBeUndefined();
  });

  it('leaves an instance of somebody else’s alone, and is over', () => {
    const foreign = there({ labels: { uid: 'other' } });
    expect(next(admitted({ cancel: true }), foreign)).toMatchObject({
      verbs: [],
      verdict: 'Cancelled Cancelled',
    });
    const deleted = admitted({}, { deletionTimestamp: '2026-01-01T00:00:00Z' });
    expect(next(deleted, foreign)).toMatchObject({
      verdict: 'Cancelled Deleted',
      message: 'the CiJob was deleted',
    });
  });
});
