import type { IncomingMessage } from 'node:http';
import { parseJobPath } from './job-path.ts';
import { Refusal } from './refusal.ts';
import { shellProtocol } from './shell-protocol.ts';

/** `GET …/cijobs/NAME/shell`, with the parameters of `pods/exec` and a few more. */
export interface ShellRequest {
  namespace: string;
  name: string;
  /** A login shell when left out. */
  command: readonly string[] | undefined;
  /** As root, not as the job's user. */
  root: boolean;
  /** A terminal of that kind and, if it is known, size; without one there are three plain streams. */
  terminal: { term: string; width: number; height: number } | undefined;
}

const mostWords = 256;

/**
 * Header for the query where that of the URL does not arrive: the API server's proxy drops it from requests that
 * change the protocol (measured on 1.36).
 */
export const proxiedQuery = 'X-Cijob-Query';

/** @throws Refusal */
export function parseShellRequest(request: IncomingMessage): ShellRequest {
  const path = parseJobPath(request.url, 'shell');
  if (!path) throw new Refusal(404, 'NotFound', 'only …/cijobs/NAME/shell is spoken to by WebSocket');
  const { headers } = request;
  const protocols = (headers['sec-websocket-protocol'] ?? '').split(',').map((one) => one.trim());
  if (
    request.method !== 'GET' ||
    headers.upgrade?.toLowerCase() !== 'websocket' ||
    headers['sec-websocket-version'] !== '13' ||
    !/^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? '') ||
    !protocols.includes(shellProtocol)
  ) {
    throw bad(`a shell is a WebSocket that speaks ${shellProtocol}`);
  }
  const { namespace, name } = path;
  const own = headers[proxiedQuery.toLowerCase()];
  const query = typeof own === 'string' ? new URLSearchParams(own) : path.query;
  const command = query.getAll('command');
  if (command.length > mostWords) throw bad(`command has more than ${mostWords} words`);
  return {
    namespace,
    name,
    command: command.length === 0 ? undefined : command,
    root: flag(query, 'root'),
    terminal: flag(query, 'tty')
      ? { term: termOf(query), width: size(query, 'width', 80), height: size(query, 'height', 24) }
      : undefined,
  };
}

function flag(query: URLSearchParams, parameter: string): boolean {
  const text = query.get(parameter) ?? 'false';
  if (text !== 'true' && text !== 'false') throw bad(`${parameter} must be true or false`);
  return text === 'true';
}

function termOf(query: URLSearchParams): string {
  const term = query.get('term') ?? 'dumb';
  if (!/^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/.test(term)) throw bad('term must be the name of a terminal');
  return term;
}

function size(query: URLSearchParams, parameter: string, usual: number): number {
  const text = query.get(parameter);
  if (text === null) return usual;
  if (!/^[1-9]\d{0,3}$/.test(text)) throw bad(`${parameter} must be a whole number from 1 to 9999`);
  return Number(text);
}

function bad(message: string): Refusal {
  return new Refusal(400, 'BadRequest', message);
}
