import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

/** A request that is refused, as `metav1.Status` says it. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly code: number;
  readonly reason: string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: number, reason: string, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.headers = headers;
  }
}

/**
 * By this `Server` header a client knows that it is the controller that refuses, and not what lies between: the API
 * server's proxy answers with a Status too.
 */
export const serverName = 'cijob-controller';

export function unauthorized(message: string): Refusal {
  return new Refusal(401, 'Unauthorized', message, { 'WWW-Authenticate': 'Bearer' });
}

/** It may be otherwise in a moment: another controller leads, or the cluster does not answer. */
export function unavailable(message: string): Refusal {
  return new Refusal(503, 'ServiceUnavailable', message, { 'Retry-After': '5' });
}

/** Answers with a `metav1.Status`. */
export function refuse(response: ServerResponse, refusal: Refusal): void {
  const { headers, body } = written(refusal);
  response.writeHead(refusal.code, headers);
  response.end(body);
}

/** As {@link refuse}, for a request that wanted to change the protocol: there is only the bare connection then. */
export function refuseUpgrade(connection: Duplex, refusal: Refusal): void {
  const { headers, body } = written(refusal);
  const lines = Object.entries({ ...headers, Connection: 'close' }).map(
    ([name, value]) => `${name}: ${value}`,
  );
  const first = `HTTP/1.1 ${refusal.code} ${STATUS_CODES[refusal.code] ?? ''}`;
  connection.end([first, ...lines, '', body].join('\r\n'));
}

function written({ code, reason, message, headers }: Refusal): {
  headers: Record<string, string>;
  body: string;
} {
  const status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code };
  const body = `${JSON.stringify(status)}\n`;
  return {
    headers: {
      Server: serverName,
      'Content-Type': 'application/json',
      'Content-Length': String(Buffer.byteLength(body)),
      'X-Content-Type-Options': 'nosniff',
      ...headers,
    },
    body,
  };
}
