import type { Readable } from 'node:stream';
import type { OperationJson } from './operations.ts';

/** A request as the simulated Incus sees it. */
export interface SimRequest {
  method: string;
  /** Path without the query. */
  path: string;
  query: URLSearchParams;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  body: Buffer;
}

/** An answer; a body `'never'` means that the request hangs until its connection dies. */
export interface SimReply {
  status: number;
  headers: Record<string, string>;
  body: Buffer | Readable | 'never';
}

/** Refusal of a request, answered at once (no operation): HTTP status and text. */
export class Refusal extends Error {
  override name = 'Refusal';
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** An answer with its result in it. */
export function sync(metadata: unknown, headers: Record<string, string> = {}): SimReply {
  return json(200, { ...envelope, type: 'sync', status: 'Success', status_code: 200, metadata }, headers);
}

/** "I have begun": an operation to follow. */
export function async(operation: OperationJson): SimReply {
  const url = `/1.0/operations/${operation.id}`;
  return json(
    202,
    {
      ...envelope,
      type: 'async',
      status: 'Operation created',
      status_code: 100,
      operation: url,
      metadata: operation,
    },
    { location: url },
  );
}

/** An error. `status` differs from `code` only for `/wait`, which says 200 and has the error in its body. */
export function failure(code: number, error: string, status = code): SimReply {
  return json(
    status,
    { ...envelope, type: 'error', error_code: code, error, metadata: null },
    { 'x-content-type-options': 'nosniff' },
  );
}

const envelope = { type: '', status: '', status_code: 0, operation: '', error_code: 0, error: '' };

function json(status: number, body: unknown, headers: Record<string, string>): SimReply {
  const bytes = Buffer.from(`${JSON.stringify(body)}\n`);
  return { status, headers: { 'content-type': 'application/json', ...headers }, body: bytes };
}
