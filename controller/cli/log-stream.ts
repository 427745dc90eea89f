import { request as httpsRequest } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { rootCertificates } from 'node:tls';
import * as z from 'zod';

/** The log server, and who we are to it. */
export interface LogServerAccess {
  /** `https://host:port` */
  url: URL;
  token: string;
  /** Authorities to trust beside the usual ones, PEM. */
  authorities: readonly string[];
  /** Name in the server's certificate, where it is not that in the URL. */
  serverName?: string | undefined;
}

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

/** The log server does not give out the log: its own words. */
export class LogRefused extends Error {
  override readonly name = 'LogRefused';
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }

  /** Whether it may be otherwise in a moment: another controller takes over. */
  get passes(): boolean {
    return this.code === 429 || this.code >= 500;
  }
}

const Status = z.object({ kind: z.literal('Status'), message: z.string().max(4096) });
const silenceTimeout = 30_000;
const maxStatusBytes = 64 * 1024;

/** Opens a log, or the archive of artifacts. Rejects with {@link LogRefused}, or the system's error when nobody can be reached. */
export async function openLog(
  access: LogServerAccess,
  query: LogQuery,
  subresource: 'log' | 'artifacts' = 'log',
): Promise<LogStream> {
  const { url, token, authorities, serverName } = access;
  const { namespace, name, uid, follow, offset, attempt } = query;
  const target = new URL(url);
  target.pathname = `${url.pathname.replace(/\/$/, '')}/apis/ci.pikaci.dev/v1alpha1/namespaces/${namespace}/cijobs/${name}/${subresource}`;
  target.search = new URLSearchParams({
    ...{ uid, follow: String(follow), offset: String(offset) },
    ...(attempt === undefined ? {} : { attempt: String(attempt) }),
  }).toString();
  const body = await new Promise<IncomingMessage>((resolve, reject) => {
    const outgoing = httpsRequest(target, {
      headers: { Authorization: `Bearer ${token}` },
      ca: [...rootCertificates, ...authorities],
      ...(serverName === undefined ? {} : { servername: serverName }),
      agent: false,
    });
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
  if (body.statusCode !== 200) throw new LogRefused(body.statusCode ?? 0, await refusal(body));
  return {
    attempt: Number(body.headers['x-cijob-attempt'] ?? attempt ?? 1),
    truncated: body.headers['x-cijob-log-truncated'] === 'true',
    body,
  };
}

async function refusal(body: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of body as AsyncIterable<Buffer>) {
    text += chunk.toString('utf8');
    if (text.length > maxStatusBytes) body.destroy();
  }
  try {
    return Status.parse(JSON.parse(text)).message;
  } catch {
    return `HTTP ${body.statusCode ?? 0}; is this the controller's log server?`;
  }
}
