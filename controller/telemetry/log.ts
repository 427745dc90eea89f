import { pino, type DestinationStream, type Logger as PinoLogger } from 'pino';
import type { Clock } from '../clock.ts';
import { escapedJson, printableLine } from '../printable.ts';

/** Log levels, from most to least. */
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** What a line may be about; further fields are free. */
export interface LogFields {
  /** `namespace/name` of the CiJob. */
  job?: string;
  host?: string;
  /** Id of one reconciliation, the same on all its lines. */
  reconcileID?: string;
  /** What went wrong. */
  err?: unknown;
  [field: string]: unknown;
}

export type Logger = PinoLogger;

export interface LogOptions {
  level: LogLevel;
  clock: Clock;
  /** `json` for machines, one object a line; `text` for a terminal. */
  format: 'json' | 'text';
  /** Where the lines go; standard error by default, as standard output belongs to the job's own output. */
  destination?: DestinationStream;
}

/** Fields that may hold a secret, should they ever reach a log with an object around them. */
const secretFields = [
  'authorization',
  'Authorization',
  'token',
  'password',
  'privateKey',
  'environment',
  'env',
];
const redacted = secretFields.flatMap((field) => [field, `*.${field}`, `*.*.${field}`]);

/** A structured logger: `time` (RFC 3339, UTC), `level` (a word), `msg`, and the fields given. */
export function createLogger(options: LogOptions): Logger {
  const { level, clock, format, destination = standardError() } = options;
  return pino(
    {
      level,
      base: null,
      messageKey: 'msg',
      timestamp: () => `,"time":"${new Date(clock.now()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: redacted, censor: '[redacted]' },
    },
    { write: (line) => destination.write(format === 'json' ? escapedJson(line) : humanLine(line)) },
  );
}

/** A log that cannot be written, such as to a full disk, is no reason to stop. */
function standardError(): DestinationStream {
  return pino.destination({ dest: 2, sync: true }).on('error', () => undefined);
}

/** `12:00:00 info  ci/a on build-1: the message  key=value` for one JSON line. */
export function humanLine(line: string): string {
  const { time, level, msg, job, host, err, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const about = [job, host && `on ${text(host)}`].filter(Boolean).map(text).join(' ');
  const fields = Object.entries(rest).map(([key, value]) => `  ${key}=${text(value)}`);
  const failure = (err as { message?: string } | undefined)?.message;
  const head = `${text(time).slice(11, 19)} ${text(level).padEnd(5)} ${about && `${about}: `}${text(msg)}`;
  return `${head}${failure === undefined ? '' : `: ${text(failure)}`}${fields.join('')}\n`;
}

function text(value: unknown): string {
  if (value === undefined) return '';
  // The guest may have chosen it.
  return printableLine(typeof value === 'string' ? value : JSON.stringify(value));
}
