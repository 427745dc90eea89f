/**
 * What went wrong, as far as the server says it in codes. An operation that failed carries no code, only text
 * (Incus 6.0), so what can be known beforehand (image, profile, project, instance type) is asked beforehand.
 */
export type IncusErrorKind =
  /** 404: there is no such thing. */
  | 'NotFound'
  /** 409, 412: it exists already, or has changed. */
  | 'Conflict'
  /** 401, 403: we may not. */
  | 'Forbidden'
  /** 400: the server refuses what we ask. */
  | 'Refused'
  /** 5xx: the server failed to answer. */
  | 'ServerError'
  /** The operation was accepted, ran and failed. */
  | 'OperationFailed'
  /** No answer: the request may or may not have taken effect. Look again, never guess. */
  | 'Unknown'
  /** A guest sent its part of the answer too slowly, or not at all. This says nothing about the server. */
  | 'TooSlow'
  /** An answer we cannot read. */
  | 'Garbled'
  /** An answer larger than we are willing to hold. */
  | 'TooLarge';

/** An answer from Incus other than success, or none. `message` is safe to show: it holds no request body. */
export class IncusError extends Error {
  override readonly name = 'IncusError';
  readonly kind: IncusErrorKind;
  /** HTTP status, or 0 where there was none. */
  readonly status: number;

  constructor(kind: IncusErrorKind, message: string, status = 0, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.status = status;
  }
}

/** The kind of an HTTP status that is not success. */
export function kindOfStatus(status: number): IncusErrorKind {
  if (status === 404) return 'NotFound';
  if (status === 409 || status === 412) return 'Conflict';
  if (status === 401 || status === 403) return 'Forbidden';
  if (status >= 400 && status < 500) return 'Refused';
  return 'ServerError';
}

/** Whether a guest is to blame, so that another try would bring no more. */
export function isTooSlow(error: unknown): boolean {
  return error instanceof IncusError && error.kind === 'TooSlow';
}
