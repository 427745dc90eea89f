import { findCondition, isTrue } from '../api/conditions.ts';
import type { CiJob } from '../api/cijob.ts';
import type { Command, Verb } from '../incus/commands.ts';
import type { InstanceView } from '../incus/inventory.ts';
import type { Collected } from '../incus/outcome.ts';
import { createCommand, launchCommand, resolveCommand, runnerPath } from './desired.ts';
import { instanceName } from './names.ts';
import type { HostView, Observed, Patience, Problem } from './observed.ts';
import { leaseEnd, parseRunOwner } from './run-owner.ts';
import { specFault } from './spec-fault.ts';
import { calledOff, isOwn, yes, type Step } from './step.ts';
import { config, infrastructure, verdictOf, type FailedVerdict, type Verdict } from './verdict.ts';

/** A command that keeps failing, or whose answer keeps getting lost, is given up after this many tries. */
const tries = 5;
/** What a command left cannot be had again, and is worth so many tries or, where each takes long, so much time. */
const triesToCollect = 8;
const timeToCollect = 2 * 60_000;
/** After so many tries the result is enough. */
const triesForTheRest = 3;
/** How long a job that is called off is still read, in milliseconds. */
export const partingTime = 15_000;
/**
 * What is in a guest's hands, and how long it still has where the job is called off, in milliseconds. Everything else
 * comes to its own end.
 */
const timeToEnd: Partial<Record<Verb, number>> = { collect: partingTime, launch: 0, probe: 0 };
const firstPause = 1_000;
const probeInterval = 1_000;

/** The part of the plan for a job that holds a slot: from making the instance to the verdict. */
export function planAttempt(job: CiJob, observed: Observed, now: number, patience: Patience): Step {
  const { host, instance, memory } = observed;
  if (!host) return {};
  if (host.kind === 'down') return outOfSight(job, host, now, patience);
  const refusal = refusalIn(memory.problem);
  if (refusal) return { verdict: refusal };
  // It is being made or taken away, maybe by a controller that died: the end of that will be told.
  if (!instance && observed.underWay) return {};
  if (calledOff(job)) return callOff(job, observed, now);
  if (!instance) return provision(job, host, observed, now, patience);
  if (!isOwn(job, instance, observed.controllerId)) {
    return {
      verdict: config(
        'InstanceNameTaken',
        `an instance ${instance.name} that is not ours exists on ${where(job)}; it was left alone`,
      ),
    };
  }
  if (instance.status !== 'Running') return notRunning(job, instance, observed, now, patience);
  if (!isReady(job, instance, observed)) return boot(job, instance, observed, now);
  return run(job, instance, observed, now, patience);
}

function outOfSight(
  job: CiJob,
  host: Extract<HostView, { kind: 'down' }>,
  now: number,
  { hostBlip, hostGrace, cancelGrace }: Patience,
): Step {
  const grace = calledOff(job) ? cancelGrace : hostGrace;
  const lostAt = host.since + grace;
  // Connections are cut and made anew, and controllers start, without a word about it in every job.
  const toldAt = host.since + Math.min(hostBlip, grace);
  if (now < toldAt) return { wakeAt: toldAt };
  if (now < lostAt) {
    const message = `host ${job.status?.host ?? ''} is unreachable, and the job's state unknown: ${host.message}`;
    return { blocked: { reason: 'HostUnreachable', message }, wakeAt: lostAt };
  }
  if (calledOff(job)) return { verdict: cancelled(job) };
  return {
    verdict: infrastructure(
      'HostLost',
      `host ${job.status?.host ?? ''} was unreachable for ${Math.round(hostGrace / 1000)} s: ${host.message}`,
    ),
  };
}

/** No instance yet, or none any more. */
function provision(
  job: CiJob,
  host: Extract<HostView, { kind: 'up' }>,
  observed: Observed,
  now: number,
  patience: Patience,
): Step {
  const { memory } = observed;
  if (isTrue(job.status?.conditions, 'RunnerStarted')) {
    if (memory.gone !== nameOf(job))
      return again(job, observed, now, { verb: 'read', instance: nameOf(job) }, 'InstanceGone');
    return { verdict: infrastructure('InstanceGone', `the instance vanished from ${where(job)}`) };
  }
  const fault = specFault(job);
  if (fault) return { verdict: fault };
  const next: Command = memory.resolved
    ? createCommand(job, attemptOf(job), memory.resolved, {
        controllerId: observed.controllerId,
        storagePool: host.storagePool,
        // An installation comes back and looks after its instances; a `cijob run` does not.
        ...(parseRunOwner(observed.controllerId) ? { leaseEnd: leaseEnd(job, now, patience) } : {}),
      })
    : resolveCommand(job, attemptOf(job));
  const failure = createFailure(memory.problem);
  if (failure) return { verdict: failure };
  return { phase: 'Provisioning', ...again(job, observed, now, next, 'CreateFailed') };
}

function notRunning(
  job: CiJob,
  instance: InstanceView,
  observed: Observed,
  now: number,
  patience: Patience,
): Step {
  if (instance.operations.size > 0 || observed.memory.inFlight !== undefined) {
    // It is being made; or, if its runner was launched before, somebody restarts it or takes it away.
    return isTrue(job.status?.conditions, 'RunnerStarted') ? {} : { phase: 'Provisioning' };
  }
  const failure = createFailure(observed.memory.problem);
  if (failure?.reason === 'StartFailed') return { verdict: failure };
  if (!instance.everStarted) {
    // Whoever was making it died half-way. It never ran anything, so it can be made again from the start.
    const command: Command = { verb: 'delete', instance: instance.name, uid: job.metadata.uid };
    return { phase: 'Provisioning', ...again(job, observed, now, command, 'HalfMadeInstance') };
  }
  // Paused, or something that passes: it may go on, until its time is up.
  if (instance.status !== 'Stopped' && !isOverdue(job, observed, now, patience))
    return { wakeAt: deadline(job, observed, now, patience) };
  const { memory } = observed;
  if (memory.collected || memory.problem?.verb === 'collect') {
    const verdict = memory.collected && verdictOf(job, memory.collected);
    return { verdict: verdict ?? stopped(job, memory.collected) };
  }
  return {
    phase: 'Collecting',
    ...again(job, observed, now, collectCommand(job, instance, observed), 'ResultUnreadable'),
  };
}

function boot(job: CiJob, instance: InstanceView, { memory }: Observed, now: number): Step {
  const startedAt = Math.min(now, instance.startedAt);
  const giveUpAt = startedAt + job.spec.bootTimeoutSeconds * 1000;
  // What was asked in time may wait for its turn, and then brings the answer.
  if (memory.inFlight === 'probe') return { phase: 'Booting', conditions: started(instance) };
  // A controller that has only just come asks once, however long the guest has been there.
  if (now >= giveUpAt && memory.probedAt !== undefined) {
    return {
      verdict: infrastructure(
        'AgentNotReady',
        `the guest could not take a command within ${job.spec.bootTimeoutSeconds} s of its start`,
      ),
    };
  }
  const probeAt = memory.probedAt === undefined ? now : memory.probedAt + probeInterval;
  const next = now < probeAt ? probeAt : now + probeInterval;
  return {
    phase: 'Booting',
    conditions: started(instance),
    commands: now < probeAt ? [] : at(job, { verb: 'probe', instance: instance.name }),
    wakeAt: now < giveUpAt ? Math.min(giveUpAt, next) : next,
  };
}

/** The guest can take commands: launch the runner, wait for it, read what it left. */
function run(job: CiJob, instance: InstanceView, observed: Observed, now: number, patience: Patience): Step {
  const { runner, memory } = observed;
  const launch = launchCommand(job, attemptOf(job));
  const conditions: Step['conditions'] = {
    ...started(instance),
    AgentReady: yes('AgentAnswers', 'the guest can take commands'),
    RunnerStarted: yes('RunnerLaunched', 'the runner was launched'),
  };
  const { resolved } = memory;
  const running: Step = {
    phase: 'Running',
    conditions,
    ...(resolved ? { imageFingerprint: resolved.fingerprint } : {}),
  };
  if (memory.collected) {
    const verdict = verdictOf(job, memory.collected);
    if (verdict) return { verdict, conditions };
    if (isOverdue(job, observed, now, patience)) return { verdict: overdue(job, observed), conditions };
    if (memory.launches >= 2) return { verdict: withoutResult(observed), conditions };
    // Killed with its exec, or by a reboot: a second launch attaches to what still runs, or says what happened.
    return { ...running, ...again(job, observed, now, launch, 'LaunchFailed') };
  }
  if (runner === 'none' || runner === 'lost') {
    return { ...running, ...again(job, observed, now, launch, 'LaunchFailed') };
  }
  if (runner === 'running' && !isOverdue(job, observed, now, patience)) {
    return { ...running, wakeAt: deadline(job, observed, now, patience) };
  }
  const collecting = again(job, observed, now, collectCommand(job, instance, observed), 'ResultUnreadable');
  // It has not ended in its time, and what it wrote cannot be read: that is no fault of the infrastructure.
  const verdict = collecting.verdict && runner === 'running' ? overdue(job, observed) : collecting.verdict;
  return { phase: 'Collecting', conditions, ...collecting, ...(verdict && { verdict }) };
}

/** Cancelled or deleted while it holds a slot: what the guest still tells is read before it is taken away. */
function callOff(job: CiJob, observed: Observed, now: number): Step {
  const { instance, memory } = observed;
  if (memory.inFlight !== undefined) return { cutShortIn: timeToEnd[memory.inFlight] };
  if (!instance && memory.gone !== nameOf(job)) {
    const look = again(job, observed, now, { verb: 'read', instance: nameOf(job) }, 'InstanceUnknown');
    return look.verdict ? { verdict: cancelled(job, observed) } : look;
  }
  if (!instance || !isOwn(job, instance, observed.controllerId)) return { verdict: cancelled(job, observed) };
  const ran = isTrue(job.status?.conditions, 'RunnerStarted');
  if (ran && !memory.collected && memory.problem?.verb !== 'collect') {
    return { phase: 'Collecting', commands: at(job, collectCommand(job, instance, observed)) };
  }
  const { uid } = job.metadata;
  return {
    commands: [
      ...(instance.status === 'Running' ? at(job, { verb: 'stop', instance: instance.name, uid }) : []),
      ...at(job, { verb: 'delete', instance: instance.name, uid }),
    ],
    wakeAt: now + firstPause,
  };
}

function cancelled(job: CiJob, observed?: Observed): Verdict {
  // A result that was there before the instance was taken away is what really happened.
  const collected = observed?.memory.collected;
  const known = collected && verdictOf(job, collected);
  if (known && (known.passed || known.class !== 'Infrastructure')) return known;
  const deleted = calledOff(job) === 'Deleted';
  return {
    passed: false,
    class: 'Cancelled',
    reason: deleted ? 'Deleted' : 'Cancelled',
    message: deleted ? 'the CiJob was deleted' : 'spec.cancel was set',
    log: collected && infrastructure('', '', collected).log,
  };
}

/** A command, and what to do when it does not work: pause and try again, and give up after some tries. */
function again(job: CiJob, observed: Observed, now: number, command: Command, reason: string): Step {
  const { problem } = observed.memory;
  if (problem?.verb !== command.verb) return { commands: at(job, command) };
  if (isGivenUp(problem, now)) return { verdict: infrastructure(reason, problem.outcome.message) };
  const pauseEnds = problem.at + firstPause * 2 ** (problem.count - 1);
  return now < pauseEnds ? { wakeAt: pauseEnds } : { commands: at(job, command) };
}

function isGivenUp({ verb, count, since }: Problem, now: number): boolean {
  if (verb !== 'collect') return count >= tries;
  return count >= triesToCollect || now - since >= timeToCollect;
}

/** Reads what the guest left. The archive of a CiJob that is deleted would go with it, so none is made. */
function collectCommand(job: CiJob, instance: InstanceView, { memory: { problem } }: Observed): Command {
  const off = calledOff(job);
  const tried = problem?.verb === 'collect' ? problem.count : 0;
  const lastTry = off !== undefined || instance.status !== 'Running' || tried >= triesForTheRest;
  return {
    verb: 'collect',
    instance: instance.name,
    artifacts: off === 'Deleted' ? [] : job.spec.artifacts,
    ...(off && { withinMs: partingTime }),
    ...(lastTry && { resultOnly: true }),
  };
}

function refusalIn(problem: Problem | undefined): Verdict | undefined {
  if (problem?.outcome.kind !== 'refused') return undefined;
  return config(problem.outcome.reason, problem.outcome.message);
}

/** Incus could not make or start the instance. What is wrong with this host need not be wrong with the next. */
function createFailure(problem: Problem | undefined): FailedVerdict | undefined {
  if (problem?.verb !== 'create' || problem.outcome.kind !== 'failed') return undefined;
  const { reason = 'CreateFailed', message } = problem.outcome;
  return { ...infrastructure(reason, message), lasting: true };
}

/** The instance has stopped, and there is no result in it. Whoever made it may not have lived to hear why. */
function stopped(job: CiJob, collected: Collected | undefined): Verdict {
  const launched = isTrue(job.status?.conditions, 'RunnerStarted');
  const why = launched ? undefined : collected?.startErrors;
  if (why !== undefined) return { ...infrastructure('StartFailed', why), lasting: true };
  const before = launched ? 'the runner wrote a result' : 'its command was launched';
  return infrastructure('InstanceStopped', `the instance stopped before ${before}`, collected);
}

function withoutResult({ runner, memory }: Observed): Verdict {
  const code = typeof runner === 'object' ? runner.returnCode : undefined;
  if (code === 127) return config('RunnerNotFound', `the image has no runner ${runnerPath}`);
  if (code === 126) {
    return config(
      'RunnerNotExecutable',
      `the image has a runner ${runnerPath} that cannot be executed: look at its mode, and at the program in its first line`,
    );
  }
  return infrastructure(
    'RunnerVanished',
    `the runner ended (code ${code ?? 'unknown'}) and left no result`,
    memory.collected,
  );
}

function overdue(job: CiJob, { memory }: Observed): Verdict {
  return {
    passed: false,
    class: 'Timeout',
    reason: 'HostDeadlineExceeded',
    message: `the guest did not report within its limit of ${job.spec.timeoutSeconds} s and the grace period after it`,
    log: infrastructure('', '', memory.collected).log,
  };
}

/**
 * When the host's own limit for the runner passes. The guest's limit comes first, so that a result is written.
 *
 * The condition tells that a launch was about to be sent, and no more: it may have been lost, with the controller or the
 * connection, and sent anew much later. The command began with one of the two, so the later one counts.
 */
function deadline(job: CiJob, { memory }: Observed, now: number, { deadlineSlack }: Patience): number {
  const launched = findCondition(job.status?.conditions, 'RunnerStarted');
  const first = launched?.status === 'True' ? Date.parse(launched.lastTransitionTime) : now;
  return Math.max(first, memory.launchedAt ?? 0) + job.spec.timeoutSeconds * 1000 + deadlineSlack;
}

function isOverdue(job: CiJob, observed: Observed, now: number, patience: Patience): boolean {
  return now >= deadline(job, observed, now, patience);
}

/** Whether the guest can take commands. One that could take the launch needs no second boot, whoever sent it. */
function isReady(job: CiJob, instance: InstanceView, { memory }: Observed): boolean {
  return (
    instance.type === 'container' ||
    instance.announcedReady ||
    memory.agentAnswered ||
    isTrue(job.status?.conditions, 'AgentReady')
  );
}

function started(instance: InstanceView): NonNullable<Step['conditions']> {
  return {
    DevicesConfigured: yes('DevicesAttached', 'the instance was created with all of its devices'),
    Started: yes('InstanceRunning', `instance ${instance.name} is running`),
  };
}

function at(job: CiJob, command: Command): { host: string; command: Command }[] {
  return [{ host: job.status?.host ?? '', command }];
}

function attemptOf(job: CiJob): number {
  return job.status?.attempt ?? 1;
}

function nameOf(job: CiJob): string {
  return instanceName(job.metadata.uid, attemptOf(job));
}

function where(job: CiJob): string {
  return `host ${job.status?.host ?? ''}`;
}
