import { createHash } from 'node:crypto';

/**
 * Ids of a trace follow from what is durable, so that every controller that ever looks at a job makes the same ones: a
 * trace goes on over restarts, and a span that is told twice is one span.
 */

/** The trace that a job's root span belongs to. */
export interface TraceParent {
  /** 32 lower-case hex digits. */
  traceId: string;
  /** 16 lower-case hex digits. */
  spanId: string;
  /** Whether the caller records its own part. */
  sampled: boolean;
}

/** 16 bytes in hex that are a function of the job's uid. */
export function traceIdOf(uid: string): string {
  return digest(`trace:${uid}`, 32);
}

/** 8 bytes in hex that are a function of the job's uid and of what the span is about. */
export function spanIdOf(uid: string, ...about: readonly (string | number)[]): string {
  return digest(['span', uid, ...about].join(':'), 16);
}

/**
 * Reads a `traceparent` (https://www.w3.org/TR/trace-context/#traceparent-header), version 00 and nothing else.
 *
 * @returns undefined where it is not written exactly as the specification says.
 */
export function parseTraceparent(value: string | undefined): TraceParent | undefined {
  const match = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(value ?? '');
  const [, traceId = '', spanId = '', flags = ''] = match ?? [];
  if (!match || isZero(traceId) || isZero(spanId)) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

function digest(text: string, digits: number): string {
  const hex = createHash('sha256').update(text).digest('hex').slice(0, digits);
  // All zeros is no id.
  return isZero(hex) ? hex.replace(/.$/, '1') : hex;
}

function isZero(hex: string): boolean {
  return /^0*$/.test(hex);
}
