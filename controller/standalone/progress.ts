import type { CiJob } from '../api/cijob.ts';
import { findCondition } from '../api/conditions.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import { printableLine } from '../printable.ts';
import { keyOf } from '../reconcile/names.ts';
import { duration } from '../reconcile/status.ts';

/** Exit codes of the program that are not a job's own: sysexits.h, and the shell's for SIGINT and SIGPIPE. */
export const exitCodes = {
  usage: 64,
  infrastructure: 70,
  /** Standard output cannot be written. */
  output: 74,
  config: 78,
  cancelled: 130,
  /** Nobody reads standard output any more. */
  readerGone: 141,
} as const;

/**
 * One line for a phase that a job has just entered, with the time since the job was created; undefined when there is
 * nothing new to tell.
 *
 * @param now milliseconds since the epoch.
 */
export function phaseLine(
  job: CiJob,
  before: CiJobStatus | undefined,
  after: CiJobStatus,
  now: number,
): string | undefined {
  const admitted = (status: CiJobStatus | undefined) =>
    status?.conditions?.find((condition) => condition.type === 'Admitted');
  const phase = after.phase ?? 'Pending';
  const waits = phase === 'Pending' && admitted(before)?.message !== admitted(after)?.message;
  if (before?.phase === phase && !waits) return undefined;
  const since = duration(now - Date.parse(job.metadata.creationTimestamp));
  return `${since.padStart(6)}  ${keyOf(job.metadata)}  ${phase.padEnd(12)} ${printableLine(detail(after))}`.trimEnd();
}

/** Lines about what could not be read of a job, or is not among its artifacts that are kept, once that is known. */
export function leftOutLines(job: CiJob, before: CiJobStatus | undefined, after: CiJobStatus): string[] {
  if (before?.completionTime !== undefined) return [];
  const collected = findCondition(after.conditions, 'Collected');
  const unread = collected?.status === 'False' ? [`not all could be read: ${collected.message}`] : [];
  const notes = (after.artifacts?.notes ?? []).map(({ message }) => `artifacts: ${message}`);
  return [...unread, ...notes].map((line) => `${keyOf(job.metadata)}: ${printableLine(line)}`);
}

function detail(status: CiJobStatus): string {
  switch (status.phase) {
    case 'Provisioning':
      return `instance ${status.instance?.name ?? ''} on ${status.host ?? ''}`;
    case 'Succeeded':
      return `exit code ${status.exitCode ?? 0}; ${times(status)}`;
    case 'Failed':
    case 'Cancelled': {
      const { failure, exitCode } = status;
      const code = exitCode === undefined ? '' : `, exit code ${exitCode}`;
      return `${failure?.class ?? ''}: ${failure?.reason ?? ''}${code}: ${failure?.message ?? ''}; ${times(status)}`;
    }
    case 'Pending':
      return status.conditions?.find((condition) => condition.type === 'Admitted')?.message ?? '';
    case 'Booting':
    case 'Running':
    case 'Collecting':
    case undefined:
      return '';
  }
}

/** What each phase took: `Provisioning 210ms, Running 1.2s`. */
export function times({ timings = [] }: CiJobStatus): string {
  return timings
    .filter((timing) => timing.finishedAt !== undefined)
    .map(({ phase, startedAt, finishedAt }) => {
      return `${phase} ${duration(Date.parse(finishedAt ?? startedAt) - Date.parse(startedAt))}`;
    })
    .join(', ');
}

/** Exit code for a finished job. */
export function exitCodeOf({ exitCode, failure }: CiJobStatus): number {
  switch (failure?.class) {
    case undefined:
      return exitCode ?? 0;
    case 'Test':
      return exitCode ?? 1;
    case 'Timeout':
      return exitCode ?? 124;
    case 'Infrastructure':
      return exitCodes.infrastructure;
    case 'Config':
      return exitCodes.config;
    case 'Cancelled':
      return exitCodes.cancelled;
  }
}
