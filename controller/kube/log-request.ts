import type { IncomingMessage } from 'node:http';
import { jobPath, parseJobPath } from './job-path.ts';
import { Refusal } from './refusal.ts';

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

/** @throws Refusal */
export function parseLogRequest(request: IncomingMessage): LogRequest {
  const subresource = parseJobPath(request.url, 'artifacts') ? 'artifacts' : 'log';
  const path = parseJobPath(request.url, subresource);
  if (!path) {
    throw new Refusal(
      404,
      'NotFound',
      `there are only ${jobPath('NAMESPACE', 'NAME', 'log')}, …/artifacts and, for WebSockets, …/shell`,
    );
  }
  if (request.method !== 'GET') {
    throw new Refusal(405, 'MethodNotAllowed', 'logs and artifacts can only be read', { Allow: 'GET' });
  }
  const { namespace, name, query } = path;
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
