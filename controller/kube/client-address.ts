import type { IncomingMessage } from 'node:http';

/**
 * Who sends a request, as far as the network tells: the address, and the one that the last proxy saw. Through the API
 * server's proxy all come from one address, and it adds theirs. Whoever comes without a proxy may write anything there:
 * it serves to tell clients apart, never to know one.
 */
export function clientOf({ socket, headers }: IncomingMessage): string {
  const address = socket.remoteAddress ?? '';
  const forwarded = headers['x-forwarded-for'];
  const last = (typeof forwarded === 'string' ? forwarded : '').split(',').at(-1)?.trim() ?? '';
  return /^[0-9A-Fa-f:.]{2,45}$/.test(last) ? `${last} via ${address}` : address;
}
