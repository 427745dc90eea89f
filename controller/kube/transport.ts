import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from 'node:https';
import { urlToHttpOptions } from 'node:url';
import type { KubeConfig } from '@kubernetes/client-node';
import { sleep, type Clock } from '../clock.ts';
import { ApiError, errorFromStatus } from './api-error.ts';
import { Deadline, systemMessage } from './deadline.ts';

export interface TransportOptions {
  config: KubeConfig;
  clock: Clock;
  /** `User-Agent` of every request, which the API server writes into audit logs and managedFields. */
  userAgent: string;
  /** Hears of every answer: the status code, or `<error>` when there was none, as in client-go. */
  onRequest?: (method: string, code: string) => void;
}

export interface ApiRequest {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
  contentType?: string;
  /** Gives up; the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Longest silence while waiting for the answer; for a stream, for its head. Default 30 s. */
  timeoutMs?: number | undefined;
  /** Largest body taken. Default 4 MiB: an object is at most 1.5 MiB in etcd. */
  maxBytes?: number | undefined;
}

/** An idle connection is closed before the API server (90 s) or a load balancer (often 60 s) closes it under us. */
const idleConnectionMs = 50_000;
/** A refused request is sent again at most so often, when the server says when and it is soon. */
const maxRefusals = 3;
const longestWaitSeconds = 10;

/**
 * HTTP to the API server. KubeConfig brings the credentials; the connections are ours, and kept alive: client-node
 * 2.0 makes a new agent, hence a new TLS handshake, for every request.
 */
export class Transport {
  readonly #options: TransportOptions;
  readonly #http = new HttpAgent({ keepAlive: true, timeout: idleConnectionMs });
  readonly #https = new HttpsAgent({ keepAlive: true, timeout: idleConnectionMs });

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /**
   * Sends a request and returns the parsed JSON of the answer. When the server refuses it for the moment (429, or 5xx
   * with Retry-After) and says for how long, the request is sent again after that time.
   *
   * @throws ApiError, or the signal's reason.
   */
  async json(request: ApiRequest): Promise<unknown> {
    for (let refusals = 1; ; refusals++) {
      try {
        return await this.#jsonOnce(request);
      } catch (error) {
        const seconds = error instanceof ApiError ? error.retryAfterSeconds : undefined;
        if (seconds === undefined || seconds > longestWaitSeconds || refusals > maxRefusals) throw error;
        await sleep(this.#options.clock, seconds * 1000, request.signal);
      }
    }
  }

  /**
   * Opens a stream and returns its body once the server has answered 200. The caller reads it to the end or destroys it.
   *
   * @throws ApiError, or the signal's reason. Aborting the signal later breaks the stream.
   */
  async stream(request: ApiRequest): Promise<IncomingMessage> {
    const deadline = new Deadline(this.#options.clock, request);
    try {
      const answer = await this.#head(request, deadline);
      deadline.lift();
      answer.once('close', () => deadline.end());
      return answer;
    } catch (error) {
      deadline.end();
      throw this.#explain(deadline, what(request), error);
    }
  }

  /** Closes the connections that are kept for later. */
  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }

  async #jsonOnce(request: ApiRequest): Promise<unknown> {
    const deadline = new Deadline(this.#options.clock, request);
    try {
      const answer = await this.#head(request, deadline);
      return parseJson(
        what(request),
        await readBody(request, answer, deadline, request.maxBytes ?? 4 * 2 ** 20),
      );
    } catch (error) {
      throw this.#explain(deadline, what(request), error);
    } finally {
      deadline.end();
    }
  }

  #explain(deadline: Deadline, request: string, error: unknown): Error {
    const explained = deadline.explain(request, error);
    if (explained instanceof ApiError && explained.status === 0) {
      // What one connection suffered from, the idle ones may too. Do not wait for each of them in turn.
      for (const agent of [this.#http, this.#https]) {
        for (const sockets of Object.values(agent.freeSockets))
          sockets?.forEach((socket) => socket.destroy());
      }
    }
    return explained;
  }

  /** Sends the request and waits for the head of an answer that is a success. */
  async #head(request: ApiRequest, deadline: Deadline): Promise<IncomingMessage> {
    let answer: IncomingMessage;
    try {
      answer = await this.#dispatch(request, deadline.signal);
    } catch (error) {
      this.#options.onRequest?.(request.method, '<error>');
      throw error;
    }
    const status = answer.statusCode ?? 0;
    this.#options.onRequest?.(request.method, String(status));
    if (status >= 200 && status < 300) return answer;
    const seconds = Number(answer.headers['retry-after'] ?? Number.NaN);
    const retryAfter = Number.isFinite(seconds) && seconds >= 0 ? seconds : undefined;
    const text = await readBody(request, answer, deadline, 2 ** 16).catch(() => '');
    throw errorFromStatus(what(request), tryJson(text), status, retryAfter);
  }

  async #dispatch(request: ApiRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const body = request.body === undefined ? '' : JSON.stringify(request.body);
    const options = await this.#address(request, Buffer.byteLength(body));
    for (;;) {
      const send = options.protocol === 'http:' ? httpRequest : httpsRequest;
      const outgoing = send({ ...options, signal });
      const answered = new Promise<IncomingMessage>((resolve, reject) => {
        outgoing.on('response', resolve);
        outgoing.on('error', reject);
      });
      outgoing.end(body);
      try {
        return await answered;
      } catch (error) {
        // The server closed an idle connection just as we reused it. It has not read the request; a POST may
        // nevertheless not be repeated blindly, as that cannot be told from a crash in the middle of it.
        const idle = outgoing.reusedSocket && (error as NodeJS.ErrnoException).code === 'ECONNRESET';
        if (!idle || request.method === 'POST' || signal.aborted) throw error;
      }
    }
  }

  /** Where to, and who we are. Read anew for every request, as tokens and certificates rotate. */
  async #address(request: ApiRequest, bodyBytes: number): Promise<RequestOptions> {
    const cluster = this.#options.config.getCurrentCluster();
    const url = new URL(cluster?.server ?? 'http://no-cluster.invalid');
    url.pathname = url.pathname.replace(/\/$/, '') + request.path;
    for (const [name, value] of Object.entries(request.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers: Record<string, string> = {};
    const auth: RequestOptions = { headers };
    try {
      await this.#options.config.applyToHTTPSOptions(auth);
    } catch (error) {
      throw new ApiError(what(request), { status: 0, reason: 'Credentials', message: systemMessage(error) });
    }
    return {
      ...urlToHttpOptions(url),
      ...auth,
      method: request.method,
      headers: {
        ...headers,
        Accept: 'application/json',
        'User-Agent': this.#options.userAgent,
        ...(bodyBytes > 0 && {
          'Content-Type': request.contentType ?? 'application/json',
          // Node leaves the body of a DELETE without a length, and the server then sees none.
          'Content-Length': bodyBytes,
        }),
      },
      // A proxy needs client-node's own agent.
      agent: cluster?.proxyUrl ? auth.agent : url.protocol === 'http:' ? this.#http : this.#https,
    };
  }
}

const what = (request: ApiRequest): string => `${request.method} ${request.path}`;

async function readBody(
  request: ApiRequest,
  answer: IncomingMessage,
  deadline: Deadline,
  maxBytes: number,
): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    deadline.heard();
    bytes += chunk.length;
    if (bytes > maxBytes) {
      const message = `the answer is larger than ${maxBytes} bytes`;
      throw new ApiError(what(request), {
        status: answer.statusCode ?? 0,
        reason: 'InvalidResponse',
        message,
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(request: string, text: string): unknown {
  const value = tryJson(text);
  if (value !== undefined) return value;
  throw new ApiError(request, { status: 200, reason: 'InvalidResponse', message: 'the answer is not JSON' });
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
