import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type WebSocket } from 'ws';
import { every, type Clock } from '../clock.ts';
import { InOrder } from '../in-order.ts';
import { AuditedVisit, type AuditTrail } from './audit-trail.ts';
import type { Connections } from '../connections.ts';
import type { JobAccess } from './job-access.ts';
import { Places } from './places.ts';
import { oneAtATime, Refusal, refuseUpgrade, unavailable } from './refusal.ts';
import {
  channels,
  endMessage,
  framed,
  maxMessageBytes,
  parseClientMessage,
  shellProtocol,
  type ShellEnd,
  type TerminalSize,
} from './shell-protocol.ts';
import { parseShellRequest, type ShellRequest } from './shell-request.ts';

/** The instance that a shell is for. */
export interface ShellTarget {
  namespace: string;
  name: string;
  uid: string;
  host: string;
  instance: string;
}

/** A command that runs in a guest, attached. */
export interface Shell {
  /** Takes what was typed; resolves when it takes more. */
  send(data: Buffer): Promise<void>;
  endInput(): void;
  resize(size: TerminalSize): void;
  /** Ends the command. Harmless when it has ended. */
  close(): void;
  /** Resolves when it has ended, and all its output was taken. */
  readonly ended: Promise<ShellEnd>;
}

/** The shells there can be. Only the leader has them, as only it is connected to the hosts. */
export interface ServedShells {
  /** @throws Refusal when the CiJob is not there, or has no instance that runs. */
  find(job: { namespace: string; name: string }): ShellTarget;
  /** @throws Refusal when the host does not do it. */
  open(
    target: ShellTarget,
    request: ShellRequest,
    onOutput: (stream: 'stdout' | 'stderr', chunk: Buffer) => Promise<void>,
  ): Promise<Shell>;
  /** Why the instance is not there any more; undefined while it is. */
  gone(target: ShellTarget): string | undefined;
  /** Hears who has a shell. */
  opened(target: ShellTarget, username: string, root: boolean): void;
}

export interface ShellServerOptions {
  clock: Clock;
  access: JobAccess;
  connections: Connections;
  /** Where it is recorded who had a shell. */
  trail: AuditTrail;
  /** Undefined while another process leads. */
  shells: () => ServedShells | undefined;
  onError: (what: string, error: unknown) => void;
}

/** Shells at once. */
const shellPlaces = { ofUser: 8, ofNamespace: 24, most: 48, reserve: 16, least: 2 };
/** Who has a shell is asked for anew so often: rights are taken away. */
const reviewInterval = 60_000;
/** A client that has not answered the ping before is gone, in milliseconds. */
const pingInterval = 30_000;
/** How long a shell may be silent both ways, in milliseconds. */
const idleLimit = 30 * 60_000;
/** How long a client has to take its leave. */
const partingTime = 5_000;

/**
 * Serves shells over WebSocket to whoever the cluster's RBAC lets `create` the subresource `cijobs/shell`, and shells of
 * root to whoever it lets `create` `cijobs/rootshell`.
 */
export class ShellServer {
  readonly #options: ShellServerOptions;
  readonly #places = new Places(shellPlaces, 'shells');
  readonly #sockets = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    handleProtocols: () => shellProtocol,
  });
  /** Ends each shell that is open. */
  readonly #open = new Set<(end: ShellEnd) => void>();
  /** Connections of which none is left when we close. */
  readonly #connections = new Set<Duplex>();

  constructor(options: ShellServerOptions) {
    this.#options = options;
  }

  /** Answers a request to change the protocol: with a shell, or with a Status that says why not. */
  async upgrade(request: IncomingMessage, connection: Duplex, head: Buffer): Promise<void> {
    this.#connections.add(connection);
    const gone = new Promise<undefined>((resolve) => {
      connection.once('close', () => {
        this.#connections.delete(connection);
        resolve(undefined);
      });
    });
    connection.on('error', () => undefined);
    const after: (() => void)[] = [];
    let shell: Shell | undefined;
    let visit: AuditedVisit | undefined;
    const bytes = { bytesSent: 0, bytesReceived: 0 };
    let upgraded = false;
    const { clock, access, connections } = this.#options;
    try {
      const stay = connections.begin(request.socket);
      if (!stay) throw oneAtATime();
      after.push(() => stay.end());
      const wanted = parseShellRequest(request);
      const right = { verb: 'create', subresource: wanted.root ? 'rootshell' : 'shell' };
      const { user, client, may } = await access.callerOf(request);
      visit = new AuditedVisit(this.#options, { ...wanted, ...right, user, client });
      await may(right, wanted);
      after.push(this.#places.enter(user.username, wanted.namespace));
      stay.vouch();
      const shells = this.#options.shells();
      if (!shells) throw unavailable('another controller leads, and is connected to the hosts: ask again');
      const target = shells.find(wanted);
      const { uid, host, instance } = target;
      visit.open({ uid, host, instance });
      // What is printed before there is somebody to read it waits.
      const { promise: reader, resolve: begin } = Promise.withResolvers<WebSocket>();
      const idle = { since: clock.now() };
      shell = await shells.open(target, wanted, async (stream, chunk) => {
        idle.since = clock.now();
        bytes.bytesSent += chunk.length;
        await sendTo(await reader, framed(channels[stream], chunk));
      });
      const socket = await Promise.race([
        gone,
        new Promise<WebSocket>((resolve) => this.#sockets.handleUpgrade(request, connection, head, resolve)),
      ]);
      if (!socket) return;
      upgraded = true;
      shells.opened(target, user.username, wanted.root);
      begin(socket);
      socket.on('message', (data: Buffer) => (bytes.bytesReceived += data.length));
      const ended = await this.#talk(socket, shell, () => may(right, wanted), idle);
      const end = ended && explained(shells, target, ended);
      if (end) visit.close({ ...bytes, outcome: inWords(end) });
      if (end) await this.#part(socket, end);
      socket.terminate();
    } catch (error) {
      const refusal = this.#refusalOf(error);
      const { code, message: outcome } = refusal;
      if (visit?.isOpen) visit.close({ ...bytes, code, outcome });
      else visit?.refuse(refusal);
      if (upgraded) connection.destroy();
      else refuseUpgrade(connection, refusal, clock);
    } finally {
      visit?.close({ ...bytes, outcome: 'the user went away' });
      shell?.close();
      for (const leave of after) leave();
    }
  }

  /** Ends every shell. */
  close(): void {
    const end: ShellEnd = { kind: 'broken', reason: 'ServiceUnavailable', message: 'the controller stops' };
    for (const finish of this.#open) finish(end);
    // Those that do not read must not keep us.
    for (const connection of this.#connections) setImmediate(() => connection.destroy());
  }

  /** Carries bytes both ways until one side ends. Undefined: the user has gone. */
  async #talk(
    socket: WebSocket,
    shell: Shell,
    again: () => Promise<void>,
    idle: { since: number },
  ): Promise<ShellEnd | undefined> {
    const { clock } = this.#options;
    const { promise: over, resolve: finish } = Promise.withResolvers<ShellEnd | undefined>();
    const cancels = [
      every(clock, reviewInterval, () => {
        again().catch((error: unknown) => {
          const { reason, message } = this.#refusalOf(error);
          finish({ kind: 'broken', reason, message });
        });
      }),
      every(clock, pingInterval, () => {
        // What we do not read now may hold its answer.
        if (!heard && !socket.isPaused) finish(undefined);
        heard = false;
        socket.ping();
        if (clock.now() - idle.since > idleLimit) {
          const message = `nothing was typed or printed for ${idleLimit / 60_000} minutes`;
          finish({ kind: 'broken', reason: 'Idle', message });
        }
      }),
    ];
    let heard = true;
    const pieces = new InOrder(socket);
    this.#open.add(finish);
    const hear = () => {
      heard = true;
    };
    socket.on('pong', hear);
    // A client that takes no output for a while still sends its own.
    socket.on('ping', hear);
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      const message = isBinary ? parseClientMessage(data) : undefined;
      idle.since = clock.now();
      switch (message?.kind) {
        case 'input':
          // A guest may read more slowly than somebody pastes.
          pieces.take(() => shell.send(message.data));
          break;
        case 'endOfInput':
          pieces.take(() => shell.endInput());
          break;
        case 'resize':
          shell.resize(message.size);
          break;
        case undefined:
          finish({ kind: 'broken', reason: 'BadRequest', message: 'a message that is none of the protocol' });
      }
    });
    socket.once('close', () => finish(undefined));
    // A message that is too large is one; the connection closes itself.
    socket.on('error', () => finish(undefined));
    void shell.ended.then(finish);
    try {
      return await over;
    } finally {
      this.#open.delete(finish);
      for (const cancel of cancels) cancel();
    }
  }

  /** Says how it ended, and gives the client a moment to hear it. */
  async #part(socket: WebSocket, end: ShellEnd): Promise<void> {
    const closed = once(socket, 'close').catch(() => undefined);
    socket.resume();
    socket.send(endMessage(end), () => socket.close(1000));
    let cancel: () => void = () => undefined;
    const late = new Promise<void>((resolve) => {
      cancel = this.#options.clock.after(partingTime, resolve);
    });

    if (socket.readyState !== socket.CLOSED) await Promise.race([closed, late]);

    cancel();
  }

  #refusalOf(error: unknown): Refusal {
    if (error instanceof Refusal) return error;
    this.#options.onError('shell', error);
    return unavailable('the shell cannot be served now; the log of the controller says why');
  }
}

function sendTo(socket: WebSocket, message: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(message, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

/** A command that was killed with its instance has not just ended. */
function explained(shells: ServedShells, target: ShellTarget, end: ShellEnd): ShellEnd {
  if (end.kind === 'exited' && end.code < 128) return end;
  const message = shells.gone(target);
  return message === undefined ? end : { kind: 'broken', reason: 'InstanceGone', message };
}

function inWords(end: ShellEnd): string {
  return end.kind === 'exited' ? `it exited with code ${end.code}` : end.message;
}
