import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { CiJob } from '../api/cijob.ts';
import { group } from '../api/meta.ts';
import { sleep, type Clock } from '../clock.ts';
import type { AccessReview } from './access-review.ts';
import { sendArtifacts, type ServedArtifacts } from './artifact-answer.ts';
import { JobAccess } from './job-access.ts';
import { parseLogRequest, type LogRequest } from './log-request.ts';
import { PerUser } from './per-user.ts';
import { unavailable, Refusal, refuse } from './refusal.ts';
import { ShellServer, type ServedShells } from './shell-server.ts';
import { followKeyFiles, readKeyMaterial, type KeyFiles } from './serving-certificate.ts';
import { drained, pieceBytes } from './slow-reader.ts';

interface LogName {
  namespace: string;
  name: string;
  uid: string;
  attempt: number;
}

/** The logs there are. Only the leader has them, as only it writes them. */
export interface ServedLogs {
  job(namespace: string, name: string): CiJob | undefined;
  /** Bytes of a log; undefined when there is none. */
  size(log: LogName): number | undefined;
  /** The newest attempt that has a log. */
  newestAttempt(uid: string): number | undefined;
  isTruncated(log: LogName): boolean;
  /** Whether the log may still grow. */
  isLive(log: LogName): boolean;
  read(log: LogName, offset: number, length: number): Promise<Buffer>;
  /** Resolves when a look at the CiJob's log is worth while again. */
  changed(uid: string): Promise<undefined>;
  artifacts: ServedArtifacts;
}

export interface LogServerOptions {
  /** Address to listen on. */
  listen: { host?: string; port: number };
  files: KeyFiles;
  clock: Clock;
  review: AccessReview;
  /** Undefined while another process leads. */
  logs: () => ServedLogs | undefined;
  shells: () => ServedShells | undefined;
  onError: (what: string, error: unknown) => void;
}

export interface LogServer {
  /** The port in use, also when port 0 was asked for. */
  readonly port: number;
  /** Cuts every stream off, so that readers see that it is not the end and go on elsewhere. */
  close(): Promise<void>;
}

const maxConnections = 256;
/** Streams of one user at once. */
const maxStreams = 32;
/** Who follows a log is asked for anew so often: rights are taken away. */
const reviewInterval = 60_000;
/** The longest time between two looks at a log that is followed. */
const lookInterval = 1_000;

/**
 * Serves logs over HTTPS to whoever the cluster's RBAC lets `get` the subresource `cijobs/log`, archives of artifacts
 * to whoever may `get` `cijobs/artifacts`, and shells to whoever may `create` `cijobs/shell`.
 *
 * @throws The system's error when the address or the certificate cannot be used.
 */
export async function serveLogs(options: LogServerOptions): Promise<LogServer> {
  const { listen, files, clock, onError } = options;
  const limits = {
    maxHeaderSize: 32 * 1024,
    headersTimeout: 10_000,
    requestTimeout: 10_000,
    handshakeTimeout: 10_000,
    // A log may be silent for longer than what lies between keeps a silent connection open.
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
    noDelay: true,
  };
  const streams = new PerUser(maxStreams, 'logs');
  const access = new JobAccess(options.review, clock);
  const server = createServer(
    { ...limits, ...(await readKeyMaterial(files)), minVersion: 'TLSv1.2' },
    (request, response) => void respond(options, access, streams, request, response),
  );
  server.maxConnections = maxConnections;
  const shells = new ShellServer({ ...options, access });
  server.on('upgrade', (request, connection, head) => void shells.upgrade(request, connection, head));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(listen, resolve);
  });
  const stopFollowing = followKeyFiles(
    files,
    clock,
    (material) => server.setSecureContext({ ...material, minVersion: 'TLSv1.2' }),
    (error) => onError('serving certificate', error),
  );
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        stopFollowing();
        shells.close();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function respond(
  options: LogServerOptions,
  access: JobAccess,
  streams: PerUser,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  // Nobody has anything to tell us.
  request.resume();
  let leave: () => void = () => undefined;
  try {
    const wanted = parseLogRequest(request);
    const { subresource } = wanted;
    const { username, again } = await access.grant(request, wanted, { verb: 'get', subresource });
    leave = streams.enter(username);
    await send(options, wanted, again, response);
  } catch (error) {
    if (response.headersSent) {
      // The reader must not take it for the end.
      response.destroy();
    } else if (error instanceof Refusal) {
      refuse(response, error);
    } else {
      options.onError('log request', error);
      refuse(response, unavailable('the log cannot be served now; the log of the controller says why'));
    }
  } finally {
    leave();
  }
}

/** Sends the log from the offset on, and, if it is followed, what is added to it until it ends. */
async function send(
  options: LogServerOptions,
  wanted: LogRequest,
  again: () => Promise<void>,
  response: ServerResponse,
): Promise<void> {
  const logs = options.logs();
  if (!logs) {
    throw unavailable('another controller leads, and has the logs: ask again');
  }
  if (wanted.subresource === 'artifacts') {
    const job = jobOf(logs, wanted);
    const { namespace, name } = wanted;
    const isLive = (attempt: number) => logs.isLive({ namespace, name, uid: job.metadata.uid, attempt });
    await sendArtifacts(logs.artifacts, job, wanted, isLive, response, options.clock);
    return;
  }
  const log = choose(logs, wanted);
  const closed = new Promise<'closed'>((resolve) => response.once('close', () => resolve('closed')));
  let { offset } = wanted;
  let reviewedAt = options.clock.now();
  const reviewed = async () => {
    if (options.clock.now() - reviewedAt < reviewInterval) return;
    await again();
    reviewedAt = options.clock.now();
  };
  const size = logs.size(log) ?? 0;
  if (offset > size && !logs.isLive(log)) {
    throw new Refusal(416, 'RequestedRangeNotSatisfiable', `the log has ${size} bytes, not ${offset}`);
  }
  response.writeHead(200, {
    'Content-Type': 'text/plain; charset=utf-8',
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    'X-Cijob-Uid': log.uid,
    'X-Cijob-Attempt': log.attempt,
    'X-Cijob-Log-Truncated': String(logs.isTruncated(log)),
  });
  response.flushHeaders();
  for (;;) {
    const changed = logs.changed(log.uid);
    // Asked before the last bytes are sent: whatever was written before it ended is then among them.
    const live = logs.isLive(log);
    for (let end = logs.size(log) ?? 0; offset < end; end = logs.size(log) ?? 0) {
      // Here too: one who never catches up would else never be asked for again.
      await reviewed();
      const piece = await logs.read(log, offset, Math.min(pieceBytes, end - offset));
      if (piece.length === 0) throw new Error('the log was removed while it was read');
      offset += piece.length;
      if (!response.write(piece)) await drained(options.clock, response, closed);
      if (response.destroyed) return;
    }
    if (!wanted.follow || !live) break;
    const timer = sleep(options.clock, lookInterval);
    if ((await Promise.race([changed, timer, closed])) === 'closed') return;
    await reviewed();
  }
  response.end();
}

/** Which log is meant. @throws Refusal when there is none, and never will be. */
function choose(logs: ServedLogs, wanted: LogRequest): LogName {
  const { namespace, name, attempt, follow } = wanted;
  const job = jobOf(logs, wanted);
  const of = { namespace, name, uid: job.metadata.uid };
  const { status } = job;
  const current = { ...of, attempt: attempt ?? status?.attempt ?? 1 };
  if (logs.size(current) !== undefined) return current;
  if (logs.isLive(current)) {
    if (follow) return current;
    const phase = status?.phase ?? 'Pending';
    throw new Refusal(404, 'NotFound', `cijobs.${group} "${name}" has no log yet: it is ${phase}`);
  }
  const newest = attempt === undefined ? logs.newestAttempt(of.uid) : undefined;
  if (newest !== undefined) return { ...of, attempt: newest };
  if (status?.log || attempt !== undefined) {
    throw new Refusal(410, 'Gone', `the log of cijobs.${group} "${name}" is not kept any more`);
  }
  throw new Refusal(404, 'NotFound', `cijobs.${group} "${name}" ended without a log`);
}

/** The CiJob that is meant. @throws Refusal when there is none, or it was replaced. */
function jobOf(logs: ServedLogs, { namespace, name, uid }: LogRequest): CiJob {
  const job = logs.job(namespace, name);
  if (!job) throw new Refusal(404, 'NotFound', `cijobs.${group} "${name}" not found`);
  if (uid !== undefined && uid !== job.metadata.uid) {
    throw new Refusal(410, 'Gone', `cijobs.${group} "${name}" was replaced: its uid is not ${uid} any more`);
  }
  return job;
}
