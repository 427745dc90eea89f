import * as z from 'zod';

/**
 * Why a request failed, beyond the reasons of `metav1.Status` (NotFound, Conflict, AlreadyExists, Expired, …):
 *
 * - `NoAnswer`: the connection failed or broke; a write may or may not have happened;
 * - `Timeout` with status 0: nobody answered in time; likewise;
 * - `Credentials`: the kubeconfig's credentials could not be obtained; nothing was sent;
 * - `InvalidResponse`: the answer is too large or not what the API promises.
 */
export type OwnReason = 'NoAnswer' | 'Timeout' | 'Credentials' | 'InvalidResponse';

export interface ApiErrorDetails {
  /** HTTP status, or 0 when there was no answer. */
  status: number;
  /** `reason` of the Status body, or one of {@link OwnReason}; `Unknown` when the server gave none. */
  reason: string;
  message: string;
  /** How long the server asks us to stay away, in seconds. */
  retryAfterSeconds?: number | undefined;
}

/** Longest message taken from a server: enough for a validation error, too little to flood a log. */
const longestMessage = 1024;

/** A request to the API server that did not succeed. The message never holds headers or credentials. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly reason: string;
  readonly retryAfterSeconds: number | undefined;

  /** @param what The request, such as `PATCH /apis/…/cijobs/a`; without query and headers. */
  constructor(what: string, details: ApiErrorDetails) {
    const head = details.status === 0 ? details.reason : `${details.status} ${details.reason}`;
    super(`${what}: ${head}: ${details.message.slice(0, longestMessage)}`);
    this.status = details.status;
    this.reason = details.reason;
    this.retryAfterSeconds = details.retryAfterSeconds;
  }

  /** True when a write may have happened although it failed: look again before you decide anything. */
  get outcomeUnknown(): boolean {
    if (this.reason === 'InvalidResponse') return true;
    return this.status >= 500 || (this.status === 0 && this.reason !== 'Credentials');
  }
}

/** Whether `error` is the API server's answer with that reason, such as `NotFound` or `Conflict`. */
export function hasReason(error: unknown, reason: string): error is ApiError {
  return error instanceof ApiError && error.reason === reason;
}

/**
 * `metav1.Status`, as far as we read it
 * (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/).
 */
const Status = z.object({
  kind: z.literal('Status'),
  code: z.int().optional(),
  reason: z.string().max(128).optional(),
  message: z.string().default(''),
  details: z.object({ retryAfterSeconds: z.number().min(0).optional() }).optional(),
});

/**
 * The error a Status object stands for: the body of a failed request, or the `object` of an ERROR watch event.
 *
 * @param body Parsed JSON, or whatever came instead of it.
 * @param httpStatus Used when the body names no code.
 * @param retryAfterSeconds Of the Retry-After header, which counts before the body's.
 */
export function errorFromStatus(
  what: string,
  body: unknown,
  httpStatus: number,
  retryAfterSeconds?: number,
): ApiError {
  const status = Status.safeParse(body).data;
  return new ApiError(what, {
    status: status?.code ?? httpStatus,
    reason: status?.reason ?? reasonByCode.get(httpStatus) ?? 'Unknown',
    message: status?.message ?? 'the answer is not a Kubernetes Status; is a proxy in between?',
    retryAfterSeconds: retryAfterSeconds ?? status?.details?.retryAfterSeconds,
  });
}

/** For answers without a Status body, which load balancers and the API server's own filters give. */
const reasonByCode = new Map([
  [401, 'Unauthorized'],
  [403, 'Forbidden'],
  [404, 'NotFound'],
  [409, 'Conflict'],
  [410, 'Gone'],
  [429, 'TooManyRequests'],
  [503, 'ServiceUnavailable'],
]);
