import type { IncomingMessage, ServerResponse } from 'node:http';

/** `GET /apis/ci.pikaci.dev/v1alpha1/namespaces/NS/cijobs/NAME/log` or `…/artifacts`, parsed. */
export interface LogRequest {
  /** What is asked for of the CiJob: a right of its own in RBAC. */
  subresource: 'log' | 'artifacts';
  namespace: string;
  name: string;
  follow: boolean;
  /** First byte wanted. */
  offset: number;
  /** Only if the CiJob is still this one. */
  uid: string | undefined;
  /** The newest attempt when left out. */
  attempt: number | undefined;
}

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

const logPath =
  /^\/apis\/ci\.pikaci\.dev\/v1alpha1\/namespaces\/([a-z0-9-]{1,63})\/cijobs\/([a-z0-9.-]{1,253})\/(log|artifacts)$/;

/** @throws Refusal */
export function parseLogRequest(request: IncomingMessage): LogRequest {
  const [path = '', search = ''] = (request.url ?? '').split('?', 2);
  const [, namespace, name, subresource] = logPath.exec(path) ?? [];
  if (namespace === undefined || name === undefined) {
    throw new Refusal(
      404,
      'NotFound',
      'there is only /apis/ci.pikaci.dev/v1alpha1/namespaces/NAMESPACE/cijobs/NAME/log and /artifacts',
    );
  }
  if (request.method !== 'GET') {
    throw new Refusal(405, 'MethodNotAllowed', 'logs and artifacts can only be read', { Allow: 'GET' });
  }
  const query = new URLSearchParams(search);
  const follow = query.get('follow') ?? 'false';
  if (follow !== 'true' && follow !== 'false') throw bad('follow must be true or false');
  return {
    subresource: subresource === 'artifacts' ? 'artifacts' : 'log',
    namespace,
    name,
    follow: follow === 'true',
    offset: numberOf(query, 'offset', 0) ?? 0,
    uid: query.get('uid') ?? undefined,
    attempt: numberOf(query, 'attempt', 1),
  };
}

function numberOf(query: URLSearchParams, parameter: string, least: number): number | undefined {
  const text = query.get(parameter);
  if (text === null) return undefined;
  const number = Number(text);
  if (!/^\d{1,15}$/.test(text) || number < least)
    throw bad(`${parameter} must be a whole number from ${least} up`);
  return number;
}

function bad(message: string): Refusal {
  return new Refusal(400, 'BadRequest', message);
}

/** The bearer token of a request. @throws Refusal */
export function tokenOf(request: IncomingMessage): string {
  const token = /^Bearer +(\S{1,16384})$/i.exec(request.headers.authorization ?? '')?.[1];
  if (token === undefined) throw unauthorized('a bearer token is needed');
  return token;
}

export function unauthorized(message: string): Refusal {
  return new Refusal(401, 'Unauthorized', message, { 'WWW-Authenticate': 'Bearer' });
}

/** Answers with a `metav1.Status`. */
export function refuse(response: ServerResponse, { code, reason, message, headers }: Refusal): void {
  const status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code };
  const body = `${JSON.stringify(status)}\n`;
  response.writeHead(code, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'X-Content-Type-Options': 'nosniff',
    ...headers,
  });
  response.end(body);
}
