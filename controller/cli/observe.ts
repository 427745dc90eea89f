import { findCondition } from '../api/conditions.ts';
import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus, Phase } from '../api/cijob-status.ts';
import type { HostState } from '../hosts/host.ts';
import { commandLines } from '../incus/commands.ts';
import { keyOf } from '../reconcile/names.ts';
import type { CommandEnd } from '../reconcile/ports.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { laneOf } from './lanes.ts';
import type { Overhead } from './overhead.ts';
import type { TraceFields } from './job-traces.ts';

/** One log line a command, that an operator can read and repeat. */
export function logCommand(
  log: Logger,
  project: string,
  { job, host, command, outcome, milliseconds, reconcileID }: CommandEnd,
  trace: TraceFields | undefined,
): void {
  const fields = {
    job: keyOf(job.metadata),
    reconcileID,
    ...trace,
    host,
    instance: command.instance,
    verb: command.verb,
    outcome: outcome.kind,
    milliseconds,
    incus: commandLines(command, project).join(' && '),
    ...('message' in outcome ? { reason: outcome.message } : {}),
  };
  if (outcome.kind === 'refused' || outcome.kind === 'failed' || outcome.kind === 'unknown') {
    log.warn(fields, 'command did not succeed');
  } else {
    log.info(fields, 'command');
  }
}

/** Logs that a host is connected, or why it is not: once, however often it is looked at. */
export function hostLog(log: Logger): (host: string, state: HostState | undefined) => void {
  const told = new Map<string, string>();
  return (host, state) => {
    const { kind, since } = state ?? {};
    const message = state?.kind === 'down' ? state.message : '';
    const now = JSON.stringify([kind, since, message]);
    if (told.get(host) === now) return;
    told.set(host, now);
    if (state?.kind === 'up') log.info({ host, version: state.version }, 'host connected');
    if (state?.kind === 'down') log.warn({ host, reason: state.reason, why: message }, 'host not connected');
  };
}

/** Where what is measured of jobs goes, and what has to be known for it. */
export interface JobMeasures {
  metrics: Metrics;
  /** Lanes that are told apart. */
  lanes: ReadonlySet<string>;
  overhead: Overhead;
}

/**
 * Counts and times what a change of status tells.
 *
 * @param traceId The job's trace, for exemplars.
 */
export function measure(
  { metrics, lanes, overhead }: JobMeasures,
  job: CiJob,
  before: CiJobStatus | undefined,
  after: CiJobStatus,
  traceId?: string,
): void {
  const lane = laneOf(job, lanes);
  const added = overhead.status(before, after);
  const admitted = (status: CiJobStatus | undefined) =>
    findCondition(status?.conditions, 'Admitted')?.status === 'True';
  if (!admitted(before) && admitted(after) && after.attempts === undefined) {
    const waited = secondsBetween(job.metadata.creationTimestamp, after.startTime);
    metrics.queueSeconds.observe({ lane }, waited, traceId);
  }
  const retried = after.attempts?.at(-1);
  if (retried && after.attempts?.length !== before?.attempts?.length)
    metrics.retries.increment({ reason: retried.reason });
  if (after.completionTime === undefined || before?.completionTime !== undefined) return;
  metrics.finished.increment({
    result: after.phase ?? 'Failed',
    class: after.failure?.class ?? 'None',
    lane,
  });
  for (const [phase, histogram] of [
    ['Provisioning', metrics.provisionSeconds],
    ['Booting', metrics.bootSeconds],
    ['Collecting', metrics.collectSeconds],
  ] as const) {
    const seconds = secondsIn(after, phase);
    if (seconds !== undefined) histogram.observe({}, seconds, traceId);
  }
  const ran = secondsIn(after, 'Running');
  if (ran !== undefined) metrics.runSeconds.observe({ lane }, ran, traceId);
  if (added !== undefined) metrics.overheadSeconds.observe({}, added, traceId);
}

function secondsIn({ timings = [] }: CiJobStatus, phase: Phase): number | undefined {
  const timing = timings.find((one) => one.phase === phase);
  return timing?.finishedAt === undefined ? undefined : secondsBetween(timing.startedAt, timing.finishedAt);
}

function secondsBetween(start: string, end: string | undefined): number {
  return end === undefined ? 0 : Math.max(0, (Date.parse(end) - Date.parse(start)) / 1000);
}
