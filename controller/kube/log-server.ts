import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { Socket, type AddressInfo } from 'node:net';
import type { Clock } from '../clock.ts';
import type { AccessReview } from './access-review.ts';
import { AuditedVisit, type AuditTrail } from './audit-trail.ts';
import { Connections, type StrangerLimits } from '../connections.ts';
import { Delivery } from './delivery.ts';
import { JobAccess } from './job-access.ts';
import { answer, type ServedLogs } from './log-answer.ts';
import { parseLogRequest } from './log-request.ts';
import { Places } from './places.ts';
import { oneAtATime, unavailable, Refusal, refuse } from './refusal.ts';
import { ShellServer, type ServedShells } from './shell-server.ts';
import { followKeyFiles, readKeyMaterial, type KeyFiles } from './serving-certificate.ts';

export interface LogServerOptions {
  /** Address to listen on. */
  listen: { host?: string; port: number };
  files: KeyFiles;
  clock: Clock;
  review: AccessReview;
  /** Undefined while another process leads. */
  logs: () => ServedLogs | undefined;
  shells: () => ServedShells | undefined;
  /** Where it is recorded who had what. */
  trail: AuditTrail;
  onError: (what: string, error: unknown) => void;
}

export interface LogServer {
  /** The port in use, also when port 0 was asked for. */
  readonly port: number;
  /** Cuts every stream off, so that readers see that it is not the end and go on elsewhere. */
  close(): Promise<void>;
}

/** Logs and archives that are sent at once. Each takes about 256 KiB of memory where its reader is slow. */
const logPlaces = { ofUser: 32, ofNamespace: 64, most: 192, reserve: 64, least: 4 };

/** Of connections for which no known user stands. */
export const strangerLimits: StrangerLimits = {
  most: 128,
  ofAddress: 64,
  requestTime: 10_000,
  reviewTime: 30_000,
};

/** What a request is answered with. */
type Context = Pick<LogServerOptions, 'clock' | 'logs' | 'trail' | 'onError'> & {
  access: JobAccess;
  connections: Connections;
  places: Places;
};

/**
 * Serves logs over HTTPS to whoever the cluster's RBAC lets `get` the subresource `cijobs/log`, archives of artifacts
 * to whoever may `get` `cijobs/artifacts`, and shells to whoever may `create` `cijobs/shell` or `cijobs/rootshell`.
 *
 * @throws The system's error when the address or the certificate cannot be used.
 */
export async function serveLogs(options: LogServerOptions): Promise<LogServer> {
  const { listen, files, clock, onError } = options;
  const connections = new Connections(clock, strangerLimits);
  const access = new JobAccess(options.review, clock);
  const context: Context = { ...options, access, connections, places: new Places(logPlaces, 'logs') };
  const settings = {
    maxHeaderSize: 32 * 1024,
    // A log may be silent for longer than what lies between keeps a silent connection open.
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
    noDelay: true,
    minVersion: 'TLSv1.2',
  } as const;
  const server = createServer(
    { ...settings, ...(await readKeyMaterial(files)) },
    (request, response) => void respond(context, request, response),
  );
  // Deadlines and bounds for all that comes before a known user are theirs: Node's own know no upgrades.
  server.on('connection', (socket) => {
    if (socket instanceof Socket) connections.admit(socket);
  });
  const shells = new ShellServer({ ...options, access, connections });
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
        connections.close();
      }),
  };
}

async function respond(context: Context, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { clock, connections, access, places, onError } = context;
  // Nobody has anything to tell us.
  request.resume();
  const after: (() => void)[] = [];
  let visit: AuditedVisit | undefined;
  let delivery: Delivery | undefined;
  try {
    const stay = connections.begin(request.socket);
    if (!stay) throw oneAtATime();
    after.push(() => stay.end());
    const wanted = parseLogRequest(request);
    const { namespace, subresource } = wanted;
    const right = { verb: 'get', subresource };
    const { user, client, may } = await access.callerOf(request);
    const record = new AuditedVisit(context, { ...wanted, ...right, user, client });
    visit = record;
    await may(right, wanted);
    after.push(places.enter(user.username, namespace));
    stay.vouch();
    const logs = context.logs();
    if (!logs) throw unavailable('another controller leads, and has the logs: ask again');
    delivery = new Delivery(clock, response, () => may(right, wanted));
    const whole = await answer(logs, wanted, delivery, clock, ({ uid, attempt }) =>
      record.open({ uid, attempt }),
    );
    visit.close({ outcome: whole ? 'sent to its end' : 'the reader went away', bytesSent: delivery.bytes });
  } catch (error) {
    const refusal = refusalOf(error, onError);
    const { code, message } = refusal;
    if (visit?.isOpen) visit.close({ code, outcome: message, bytesSent: delivery?.bytes ?? 0 });
    else visit?.refuse(refusal);
    if (!response.headersSent) refuse(response, refusal);
  } finally {
    delivery?.close();
    for (const leave of after) leave();
  }
}

function refusalOf(error: unknown, onError: LogServerOptions['onError']): Refusal {
  if (error instanceof Refusal) return error;
  onError('log request', error);
  return unavailable('the log cannot be served now; the log of the controller says why');
}
