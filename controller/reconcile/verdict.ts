import { StringDecoder } from 'node:string_decoder';
import * as z from 'zod';
import { type CiJob } from '../api/cijob.ts';
import { excerptBytes, type FailureClass } from '../api/cijob-status.ts';
import type { GuestFile } from '../incus/client.ts';
import type { Collected } from '../incus/outcome.ts';

/** How an attempt ended. An Infrastructure failure is retried while the job allows; nothing else is. */
export type Verdict = { passed: true; exitCode: number; log: LogSummary | undefined } | FailedVerdict;

export interface FailedVerdict {
  passed: false;
  class: FailureClass;
  reason: string;
  message: string;
  /** The same failure of two attempts in a row is taken for one that a third would meet, too. */
  lasting?: boolean;
  /** Another attempt would come to nothing. */
  final?: true;
  exitCode?: number | undefined;
  log?: LogSummary | undefined;
}

export interface LogSummary {
  bytes: number;
  truncated: boolean;
  excerpt: string;
}

/** `/artifacts/result.json`, version 1 (docs/guest-contract.md). */
const Result = z.object({
  schema_version: z.literal(1),
  status: z.enum(['passed', 'failed']),
  exit_code: z.int().min(0).max(255),
  message: z.string().max(4096).optional(),
  timed_out: z.boolean().optional(),
  oom_killed: z.boolean().optional(),
  bootstrap_error: z.string().max(4096).nullish(),
});

/** Line that stands in a log that grew too long between its beginning and its last 4 KiB. */
export const truncationMark = '[pikaci] the log is cut here';

/**
 * What the guest's files say. The result alone decides; it is trusted as far as its schema goes and no further.
 * Returns undefined when there is no result: the runner has not written one (yet).
 */
export function verdictOf(job: CiJob, { result, log: logFile }: Collected): Verdict | undefined {
  const log = summary(logFile);
  // The runner makes the file empty when it begins, and replaces it by the result at the end.
  if (result.kind === 'missing' || (result.kind === 'file' && result.size === 0)) return undefined;
  const invalid = (why: string): Verdict => ({
    passed: false,
    class: 'Infrastructure',
    reason: 'ResultInvalid',
    message: `/artifacts/result.json ${why}`,
    log,
  });
  if (result.kind === 'unreadable') return invalid(`is not a regular file but a ${result.what}`);
  if (result.size > result.bytes.length) return invalid(`is too large: ${result.size} bytes`);
  const parsed = Result.safeParse(parseJson(result.bytes));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return invalid(`does not read as a result: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
  }
  const {
    status,
    exit_code: exitCode,
    timed_out: timedOut,
    oom_killed: outOfMemory,
    bootstrap_error: bootstrapError,
    message,
  } = parsed.data;
  if (bootstrapError) {
    return {
      passed: false,
      class: 'Infrastructure',
      reason: 'BootstrapFailed',
      message: bootstrapError,
      log,
    };
  }
  if (timedOut) {
    return {
      passed: false,
      class: 'Timeout',
      reason: 'DeadlineExceeded',
      message: `the command did not end within ${job.spec.timeoutSeconds} s${outOfMemory ? `; ${limitReached(job)}` : ''}`,
      exitCode,
      log,
    };
  }
  if (status === 'passed') return { passed: true, exitCode, log };
  const ended = message ?? `the command exited with code ${exitCode}`;
  return {
    passed: false,
    class: 'Test',
    reason: outOfMemory ? 'OutOfMemory' : 'NonZeroExitCode',
    message: outOfMemory ? `${limitReached(job)} (${ended})` : ended,
    exitCode,
    log,
  };
}

/** The guest says that much, and the command failed in any case: it is believed. */
function limitReached({ spec }: CiJob): string {
  return `the memory limit of ${spec.instance.memory} was reached: the kernel killed a process of the job`;
}

/** An infrastructure failure of an attempt. */
export function infrastructure(reason: string, message: string, collected?: Collected): FailedVerdict {
  return {
    passed: false,
    class: 'Infrastructure',
    reason,
    message,
    log: collected && summary(collected.log),
  };
}

export function config(reason: string, message: string): Verdict {
  return { passed: false, class: 'Config', reason, message };
}

/** The log's size and end. The excerpt is valid text of at most 4 KiB, whatever bytes the guest wrote. */
export function summary(log: GuestFile): LogSummary | undefined {
  if (log.kind !== 'file') return undefined;
  // Cut at a character's first byte, then whatever else is not UTF-8 shows as U+FFFD.
  let start = Math.max(0, log.bytes.length - excerptBytes);
  while (start < log.bytes.length && ((log.bytes[start] ?? 0) & 0xc0) === 0x80) start += 1;
  const text = new StringDecoder('utf8').write(log.bytes.subarray(start));
  // U+FFFD is three bytes long where it stands for one: cut again, by characters.
  let excerpt = text.replaceAll('\0', '\uFFFD');
  while (Buffer.byteLength(excerpt) > excerptBytes) {
    excerpt = excerpt.slice(Math.ceil((Buffer.byteLength(excerpt) - excerptBytes) / 3));
  }
  return { bytes: log.size, truncated: log.bytes.includes(truncationMark), excerpt };
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
