import type { IncomingMessage } from 'node:http';
import { Refusal, unauthorized } from './refusal.ts';

/**
 * Header for the bearer token where `Authorization` does not arrive: the API server's proxy takes that one away, and
 * passes this on as it is.
 */
export const proxiedAuthorization = 'X-Cijob-Authorization';

/** The bearer token of a request, from one of the two headers. @throws Refusal */
export function tokenOf({ headers }: IncomingMessage): string {
  const own = headers[proxiedAuthorization.toLowerCase()];
  if (own !== undefined && headers.authorization !== undefined) {
    throw new Refusal(400, 'BadRequest', `Authorization and ${proxiedAuthorization} exclude each other`);
  }
  const credentials = headers.authorization ?? (typeof own === 'string' ? own : '');
  const token = /^Bearer +(\S{1,16384})$/i.exec(credentials)?.[1];
  if (token === undefined) throw unauthorized('a bearer token is needed');
  return token;
}
