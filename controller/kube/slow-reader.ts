import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { sleep, type Clock } from '../clock.ts';

/** Bytes read and sent at a time. */
export const pieceBytes = 128 * 1024;
/** A reader that takes nothing for so long is cut off, in milliseconds. */
const stallTimeout = 10 * 60_000;

/** Resolves when a reader has taken what was sent, or is gone. Rejects when it takes nothing. */
export async function drained(
  clock: Clock,
  response: ServerResponse,
  closed: Promise<unknown>,
): Promise<void> {
  const stalled = new AbortController();
  const timeout = sleep(clock, stallTimeout, stalled.signal).then(() => {
    throw new Error('the reader takes nothing');
  });
  timeout.catch(() => undefined);
  try {
    await Promise.race([once(response, 'drain', { signal: stalled.signal }), closed, timeout]);
  } finally {
    stalled.abort();
  }
}
