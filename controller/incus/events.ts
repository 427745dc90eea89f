import type WebSocket from 'ws';
import { IncusEvent } from './schemas.ts';

/** Incus's own progress reports are small; anything near this is not an event. */
export const maxEventBytes = 1024 * 1024;

/**
 * Reads events from an open WebSocket until it closes. Events do not replay, may come twice and out of order
 * (measured on 6.0.4: an operation's success before its last "Running"), so readers treat ends as final.
 *
 * @param onEvent called for each event that parses; others are counted by `onGarbled`.
 * @returns when the stream has ended, with the reason.
 */
export function readEvents(
  socket: WebSocket,
  onEvent: (event: IncusEvent) => void,
  onGarbled: () => void,
): Promise<string> {
  return new Promise((resolve) => {
    let reason = 'closed by the server';
    socket.on('message', (data: Buffer) => {
      const event = parseEvent(data);
      if (event === 'other') return;
      if (event) onEvent(event);
      else onGarbled();
    });
    socket.on('error', (error) => {
      reason = error.message;
    });
    socket.once('close', () => resolve(reason));
  });
}

function parseEvent(data: Buffer): IncusEvent | 'other' | undefined {
  let json: unknown;
  try {
    json = JSON.parse(data.toString('utf8'));
  } catch {
    return undefined;
  }
  const type = (json as { type?: unknown } | null)?.type;
  if (type !== 'lifecycle' && type !== 'operation') return 'other';
  return IncusEvent.safeParse(json).data;
}
