import {
  dropConditions,
  findCondition,
  setCondition,
  type Condition,
  type ConditionClaim,
} from '../api/conditions.ts';
import { type CiJob } from '../api/cijob.ts';
import { ciJobConditions, type CiJobCondition, type CiJobStatus, type Phase } from '../api/cijob-status.ts';
import type { CleanUp } from './clean-up.ts';
import { instanceName } from './names.ts';
import type { Observed } from './observed.ts';
import { isSameFailure } from './same-failure.ts';
import { calledOff, isFinished, no, yes, type Step } from './step.ts';
import type { FailedVerdict, Verdict } from './verdict.ts';

/** The status after a step: the one place where a job's status is made. */
export function statusAfter(job: CiJob, step: Step, observed: Observed, now: number): CiJobStatus {
  const time = new Date(now).toISOString();
  const before: CiJobStatus = job.status ?? {};
  const { generation } = job.metadata;
  if (isFinished(job)) return { ...before, observedGeneration: generation };
  const draft = new Draft(before, generation, time);
  for (const [type, claim] of Object.entries(step.conditions ?? {})) {
    draft.condition(type as CiJobCondition, claim);
  }
  if (step.imageFingerprint !== undefined && draft.status.instance) {
    draft.set({ instance: { ...draft.status.instance, imageFingerprint: step.imageFingerprint } });
  }
  if (step.queuedAt !== undefined) draft.set({ queuedAt: new Date(step.queuedAt).toISOString() });
  else if ('queuedAt' in step) draft.unset('queuedAt');
  if (step.queue) draft.set({ queue: { ...step.queue, asOf: new Date(step.queue.asOf).toISOString() } });
  else if ('queue' in step) draft.unset('queue');
  if (step.admittedTo !== undefined) admit(draft, job, step.admittedTo, time);
  if (step.phase) draft.phase(step.phase);
  if (step.verdict) conclude(draft, job, step.verdict, observed, time);
  else goOn(draft, step);
  return draft.status;
}

/**
 * The status of a job that is over but cannot be let go, because a host it used is out of sight. In the ordinary case
 * the instance is gone within seconds, the finalizer's absence tells so, and no write is spent on it.
 */
export function statusWhileCleaning(
  job: CiJob,
  status: CiJobStatus,
  cleaning: CleanUp,
  now: number,
): CiJobStatus {
  const told = findCondition(status.conditions, 'InstanceDeleted');
  const draft = new Draft(status, job.metadata.generation, new Date(now).toISOString());
  if (!cleaning.clean && cleaning.blockedBy.length > 0) {
    const message = `host ${cleaning.blockedBy.join(', ')} is unreachable: whether an instance is left there is not known`;
    draft.condition('InstanceDeleted', { status: 'Unknown', reason: 'HostUnreachable', message });
    return draft.status;
  }
  if (!cleaning.clean || told?.status !== 'Unknown') return status;
  const claim =
    cleaning.blockedBy.length === 0
      ? yes('InstanceGone', 'the instance is gone')
      : no('Forced', 'released by annotation');
  draft.condition('InstanceDeleted', claim);
  return draft.status;
}

function admit(draft: Draft, job: CiJob, host: string, time: string): void {
  const attempt = draft.status.attempt ?? 1;
  draft.set({
    host,
    attempt,
    instance: { name: instanceName(job.metadata.uid, attempt) },
    startTime: draft.status.startTime ?? time,
  });
  draft.unset('queue');
  draft.condition('Admitted', yes('SlotGranted', `host ${host} has a slot for the job`));
}

/** Still under way: Ready, Reconciling and Stalled as kstatus reads them. */
function goOn(draft: Draft, { blocked }: Step): void {
  const phase = draft.status.phase ?? 'Pending';
  if (!draft.status.phase) draft.phase(phase);
  if (blocked) {
    draft.condition('Ready', { status: 'Unknown', ...blocked });
    draft.condition('Reconciling', yes(blocked.reason, blocked.message));
    return;
  }
  const admitted = findCondition(draft.status.conditions, 'Admitted');
  const waiting = phase === 'Pending' && admitted?.status === 'False' ? admitted : undefined;
  const reason = waiting?.reason ?? phase;
  draft.condition('Ready', no(reason, waiting?.message ?? 'the job has not finished'));
  draft.condition('Reconciling', yes(reason, 'the job has not finished'));
}

function conclude(draft: Draft, job: CiJob, verdict: Verdict, observed: Observed, time: string): void {
  const ended = endOfRun(draft.status, time);
  const { log } = verdict;
  const artifacts = artifactsOf(job, draft.status, observed);
  const { missed } = observed.memory.collected ?? {};
  if (ended) draft.condition('RunnerExited', yes('RunnerEnded', 'the runner has ended'));
  if (missed !== undefined) draft.condition('Collected', no('Incomplete', missed));
  else if (log) draft.condition('Collected', yes('LogRead', `the log has ${log.bytes} bytes`));
  if (!observed.instance && observed.memory.gone === draft.status.instance?.name && draft.status.instance) {
    draft.condition('InstanceDeleted', yes('InstanceGone', 'the instance is gone'));
  }
  const attempts = draft.status.attempts ?? [];
  const repeated = !verdict.passed && isRepeated(draft.status, verdict);
  if (!verdict.passed && verdict.class === 'Infrastructure' && !verdict.final && !calledOff(job)) {
    if (attempts.length < job.spec.infraRetryLimit && !repeated) {
      startOver(draft, verdict, time);
      return;
    }
  }
  draft.set({
    completionTime: time,
    ...(verdict.exitCode === undefined ? {} : { exitCode: verdict.exitCode }),
    ...(log ? { log: { bytes: log.bytes, truncated: log.truncated } } : {}),
    ...(artifacts ? { artifacts } : {}),
    ...(ended ? { duration: ended } : {}),
  });
  draft.unset('queue');
  draft.drop('Reconciling');
  if (verdict.passed) {
    draft.phase('Succeeded');
    draft.condition('Complete', yes('Succeeded', 'the command exited with code 0'));
    draft.condition('Ready', yes('Succeeded', 'the command exited with code 0'));
    return;
  }
  const { reason } = verdict;
  const said = repeated
    ? `${verdict.message}; the attempt before failed in the same way, so it is not tried again`
    : verdict.message;
  const message = said.slice(0, 4096);
  const excerpt = log?.excerpt;
  draft.set({
    failure: { class: verdict.class, reason, message, ...(excerpt ? { excerpt } : {}) },
  });
  draft.phase(verdict.class === 'Cancelled' ? 'Cancelled' : 'Failed');
  draft.condition('Failed', yes(verdict.class === 'Cancelled' ? 'Cancelled' : reason, message));
  draft.condition('Ready', no(reason, message));
  draft.condition('Stalled', yes(reason, message));
}

/** What is kept of what the command left; undefined when nothing was asked for, or the command never ran. */
function artifactsOf(job: CiJob, status: CiJobStatus, observed: Observed): CiJobStatus['artifacts'] {
  const ran = findCondition(status.conditions, 'RunnerStarted')?.status === 'True';
  if (!ran || job.spec.artifacts.length === 0 || calledOff(job) === 'Deleted') return undefined;
  const { artifacts } = observed.memory.collected ?? {};
  if (!artifacts) {
    const notes = [{ reason: 'NotRead', message: 'the guest could not be read any more' }];
    return { files: 0, bytes: 0, skipped: 0, truncated: false, notes };
  }
  const { notes, ...numbers } = artifacts;
  return notes.length === 0 ? numbers : { ...numbers, notes: [...notes] };
}

/** Whether the attempt failed as the one before it did, in a way that lasts. */
function isRepeated(
  { attempts = [], instance }: CiJobStatus,
  { lasting = false, reason, message }: FailedVerdict,
): boolean {
  const before = attempts.at(-1);
  return (
    lasting && before !== undefined && isSameFailure(before, { instance: instance?.name, reason, message })
  );
}

/** Infrastructure failed the attempt: note it, and begin the next as if the job had just come. */
function startOver(draft: Draft, verdict: FailedVerdict, time: string): void {
  const { attempt = 1, host, instance, attempts = [] } = draft.status;
  const ended = {
    attempt,
    ...(host === undefined ? {} : { host }),
    ...(instance ? { instance: instance.name } : {}),
    reason: verdict.reason,
    message: verdict.message.slice(0, 1024),
    finishedAt: time,
  };
  draft.set({ attempts: [...attempts, ended].slice(-11), attempt: attempt + 1, timings: [] });
  draft.unset('host', 'instance', 'phase', 'queuedAt');
  draft.drop(
    'DevicesConfigured',
    'Started',
    'AgentReady',
    'RunnerStarted',
    'RunnerExited',
    'Collected',
    'InstanceDeleted',
  );
  draft.phase('Pending');
  const message = `attempt ${attempt} was lost to the infrastructure: ${ended.message}`;
  draft.condition('Admitted', no('Retrying', message));
  draft.condition('Ready', no('Retrying', message));
  draft.condition('Reconciling', yes('Retrying', message));
}

/** How long the command ran, for people; undefined if it did not. */
function endOfRun({ timings = [] }: CiJobStatus, time: string): string | undefined {
  const run = timings.find((timing) => timing.phase === 'Running');
  if (!run) return undefined;
  return duration(Date.parse(run.finishedAt ?? time) - Date.parse(run.startedAt));
}

/** `850ms`, `1.2s`, `1m32s`, `2h05m`. */
export function duration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 1) return `${Math.max(0, Math.round(milliseconds))}ms`;
  if (seconds < 60) return `${seconds.toFixed(1)}s`;
  const pad = (value: number) => String(Math.floor(value)).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${pad(seconds % 60)}s`;
  return `${Math.floor(seconds / 3600)}h${pad((seconds % 3600) / 60)}m`;
}

/** A status in the making. */
class Draft {
  status: CiJobStatus;
  readonly #generation: number;
  readonly #time: string;

  constructor(before: CiJobStatus, generation: number, time: string) {
    this.status = { ...before, observedGeneration: generation };
    this.#generation = generation;
    this.#time = time;
  }

  set(fields: Partial<CiJobStatus>): void {
    this.status = { ...this.status, ...fields };
  }

  unset(...fields: (keyof CiJobStatus)[]): void {
    this.status = Object.fromEntries(
      Object.entries(this.status).filter(([field]) => !fields.includes(field as keyof CiJobStatus)),
    );
  }

  condition(type: CiJobCondition, claim: ConditionClaim): void {
    const conditions: Condition[] = setCondition(
      this.status.conditions ?? [],
      ciJobConditions,
      type,
      claim,
      this.#generation,
      this.#time,
    );
    this.set({ conditions });
  }

  drop(...types: CiJobCondition[]): void {
    this.set({ conditions: dropConditions(this.status.conditions ?? [], ...types) });
  }

  /** Enters a phase: ends the timing of the one before and begins its own. */
  phase(phase: Phase): void {
    if (this.status.phase === phase) return;
    const time = this.#time;
    const timings = (this.status.timings ?? []).map((timing) =>
      timing.finishedAt === undefined ? { ...timing, finishedAt: time } : timing,
    );
    const over = phase === 'Succeeded' || phase === 'Failed' || phase === 'Cancelled';
    this.set({ phase, timings: over ? timings : [...timings, { phase, startedAt: time }].slice(-64) });
  }
}
