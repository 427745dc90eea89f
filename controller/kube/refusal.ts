import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import { printableJson } from '../printable.ts';

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

/** How long whoever wanted to change the protocol has to read why not, in milliseconds. */
const lingerTime = 1_000;

export function unauthorized(message: string): Refusal {
  return new Refusal(401, 'Unauthorized', message, { 'WWW-Authenticate': 'Bearer' });
}

/** What a second request on a connection is answered, while the first one is under way. */
export function oneAtATime(): Refusal {
  return new Refusal(429, 'TooManyRequests', 'a connection carries one request at a time');
}

/** It may be otherwise in a moment: another controller leads, or the cluster does not answer. */
export function unavailable(message: string): Refusal {
  return new Refusal(503, 'ServiceUnavailable', message, { 'Retry-After': '5' });
}

/** Answers with a `metav1.Status`, and ends the connection: who was refused takes no place any more. */
export function refuse(response: ServerResponse, refusal: Refusal): void {
  const { headers, body } = written(refusal);
  response.writeHead(refusal.code, headers);
  response.end(body);
}

/** As {@link refuse}, for a request that wanted to change the protocol: there is only the bare connection then. */
export function refuseUpgrade(connection: Duplex, refusal: Refusal, clock: Clock): void {
  const { headers, body } = written(refusal);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  const first = `HTTP/1.1 ${refusal.code} ${STATUS_CODES[refusal.code] ?? ''}`;
  connection.end([first, ...lines, '', body].join('\r\n'));
  // The other side need not end its half, and must not be cut off before it has read why.
  const cancel = clock.after(lingerTime, () => connection.destroy());
  connection.once('close', cancel);
  connection.once('end', () => connection.destroy());
  connection.resume();
}

function written({ code, reason, message, headers }: Refusal): {
  headers: Record<string, string>;
  body: string;
} {
  const status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code };
  const body = `${printableJson(status)}\n`;
  return {
    headers: {
      Server: serverName,
      'Content-Type': 'application/json',
      'Content-Length': String(Buffer.byteLength(body)),
      'X-Content-Type-Options': 'nosniff',
      Connection: 'close',
      ...headers,
    },
    body,
  };
}
