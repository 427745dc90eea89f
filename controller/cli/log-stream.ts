import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { serverUrl, type ServerAccess } from './server-access.ts';
import { readRefusal } from './server-refused.ts';

/** Which log, and from where on. */
export interface LogQuery {
  namespace: string;
  name: string;
  uid: string;
  follow: boolean;
  offset: number;
  attempt?: number | undefined;
}

export interface LogStream {
  attempt: number;
  truncated: boolean;
  /** Ends when the log does; an error when the connection broke. */
  body: IncomingMessage;
}

const silenceTimeout = 30_000;
/** Between two attempts to reach a server that was there, in milliseconds. */
export const pause = 1_000;

/**
 * How long a server that was there has been away: a controller restarts, or another takes over. A stream that was open
 * for a while was no absence, however silent it was, or slow its reader.
 */
export class Absence {
  #since = performance.now();

  /** Passes a stream on while it lasts. */
  async *during(body: IncomingMessage): AsyncGenerator<Buffer> {
    const openedAt = performance.now();
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        yield chunk;
        this.#since = performance.now();
      }
    } finally {
      if (performance.now() - openedAt > pause) this.#since = performance.now();
    }
  }

  get isTooLong(): boolean {
    return performance.now() - this.#since > 60_000;
  }
}

/** Opens a log, or the archive of artifacts. Rejects with ServerRefused, or the system's error when nobody can be reached. */
export async function openLog(
  access: ServerAccess,
  query: LogQuery,
  subresource: 'log' | 'artifacts' = 'log',
): Promise<LogStream> {
  const { uid, follow, offset, attempt } = query;
  const parameters = new URLSearchParams({
    ...{ uid, follow: String(follow), offset: String(offset) },
    ...(attempt === undefined ? {} : { attempt: String(attempt) }),
  });
  const target = serverUrl(access, query, subresource, parameters);
  const send = target.protocol === 'http:' ? httpRequest : httpsRequest;
  const body = await new Promise<IncomingMessage>((resolve, reject) => {
    const outgoing = send(target, access.options);
    const silence = setTimeout(() => outgoing.destroy(new Error('no answer')), silenceTimeout);
    outgoing.once('response', (answer) => {
      clearTimeout(silence);
      answer.socket.setKeepAlive(true, 30_000);
      resolve(answer);
    });
    outgoing.once('error', (error) => {
      clearTimeout(silence);
      reject(error);
    });
    outgoing.end();
  });
  if (body.statusCode !== 200) throw await readRefusal(body, access);
  return {
    attempt: Number(body.headers['x-cijob-attempt'] ?? attempt ?? 1),
    truncated: body.headers['x-cijob-log-truncated'] === 'true',
    body,
  };
}
