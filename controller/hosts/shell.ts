import { once } from 'node:events';
import type WebSocket from 'ws';
import * as z from 'zod';
import { InOrder, newestOnly } from '../in-order.ts';
import type { IncusClient } from '../incus/client.ts';
import { instancePath } from '../incus/commands.ts';
import { IncusError } from '../incus/errors.ts';
import type { Operation } from '../incus/schemas.ts';

/** What to run in a guest, attached. */
export interface ShellCommand {
  /** A login shell when left out. */
  command?: readonly string[] | undefined;
  /** As root, not as the job's user. */
  root: boolean;
  /** A terminal of that kind and size; without one there are three plain streams. */
  terminal?: { term: string; width: number; height: number } | undefined;
}

/** How it ended: with an exit code, or without one that we know of. */
export type ShellEnd = { kind: 'exited'; code: number } | { kind: 'broken'; reason: string; message: string };

/** A command that runs in a guest. */
export interface Shell {
  /** Takes what was typed; resolves when it takes more. */
  send(data: Buffer): Promise<void>;
  /** Ends standard input, once. A terminal has no end of input but what is typed. */
  endInput(): void;
  /** Says a new size. Of many at once, only the newest is passed on. */
  resize(size: { width: number; height: number }): void;
  /** Ends the command, for a reason. Harmless when it has ended. */
  close(why?: string): void;
  /** Resolves when it has ended, and all its output was taken. */
  readonly ended: Promise<ShellEnd>;
}

/** Takes a piece of output; resolves when it takes more. */
export type OnOutput = (stream: 'stdout' | 'stderr', chunk: Buffer) => Promise<void>;

/** Descriptors of an exec that waits for WebSockets, by number or `control`, each with its secret. */
const ExecMetadata = z.object({ fds: z.record(z.string(), z.string()) });
const Ended = z.object({ return: z.int().min(0).max(255) });

const loginShell = ['/run/current-system/sw/bin/bash', '-l'];
/** Where the job's command began (docs/guest-contract.md). */
const workingDirectory = '/workspace/snapshot';
const searchPath = '/run/current-system/sw/bin:/run/wrappers/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const root = { user: 0, group: 0, name: 'root', home: '/root' };
const jobUser = { user: 1000, group: 100, name: 'pikaci', home: '/home/pikaci' };

/**
 * Runs a command in a guest, attached to WebSockets. To Incus that is somebody who looks on: the inventory knows
 * nothing of it.
 *
 * @param onOutput gets its output, one piece at a time
 * @throws IncusError
 */
export async function openShell(
  client: IncusClient,
  project: string,
  instance: string,
  { command = loginShell, root: asRoot, terminal }: ShellCommand,
  onOutput: OnOutput,
): Promise<Shell> {
  const who = asRoot ? root : jobUser;
  const found = await client.readFile(instance, workingDirectory, { first: 0 });
  const isThere = found.kind === 'unreadable' && found.what === 'directory';
  const operation = await client.start({
    method: 'POST',
    path: instancePath(project, instance, '/exec'),
    body: {
      command,
      user: who.user,
      group: who.group,
      cwd: isThere ? workingDirectory : who.home,
      environment: {
        ...{ HOME: who.home, USER: who.name, LOGNAME: who.name, PATH: searchPath },
        ...(terminal ? { TERM: terminal.term } : {}),
      },
      'wait-for-websocket': true,
      interactive: terminal !== undefined,
      ...(terminal ? { width: terminal.width, height: terminal.height } : {}),
    },
  });
  const { fds } = ExecMetadata.parse(operation.metadata);
  const sockets = new Map<string, WebSocket>();
  const { promise: ended, resolve: end } = Promise.withResolvers<ShellEnd>();
  let closed = false;
  const terminate = () => {
    for (const socket of sockets.values()) socket.terminate();
  };
  const close = (why = 'it was closed') => {
    closed = true;
    end({ kind: 'broken', reason: 'Closed', message: why });
    terminate();
  };
  const outputs: Promise<void>[] = [];
  try {
    for (const descriptor of terminal ? ['control', '0'] : ['control', '0', '1', '2']) {
      const socket = await client.operationSocket(operation.id, fds[descriptor] ?? '');
      socket.on('error', () => socket.terminate());
      sockets.set(descriptor, socket);
      if (descriptor === (terminal ? '0' : '1')) outputs.push(takeAll(socket, 'stdout', onOutput));
      if (descriptor === '2') outputs.push(takeAll(socket, 'stderr', onOutput));
      await once(socket, 'open');
    }
  } catch (error) {
    close();
    throw new IncusError('Unknown', error instanceof Error ? error.message : String(error), 0, {
      cause: error,
    });
  }
  const lastWords = async (): Promise<ShellEnd> => {
    await Promise.all(outputs);
    // A terminal is over when both sides have let go of it. A command without one may go on though it prints nothing.
    if (terminal) terminate();
    let last: Operation | undefined;
    while (!closed && !last) last = await client.operationEnd(instance, operation.id);
    const code = Ended.safeParse(last?.metadata).data?.return;
    if (code !== undefined) return { kind: 'exited', code };
    return { kind: 'broken', reason: 'Failed', message: last?.err || 'it ended without an exit code' };
  };
  void lastWords()
    .catch((error: unknown): ShellEnd => {
      const message = error instanceof Error ? error.message : String(error);
      return { kind: 'broken', reason: 'HostLost', message: `how it ended is not known: ${message}` };
    })
    .then(end)
    .finally(terminate);
  /** Resolves when it takes more. What has no reader any more is lost, as on any terminal. */
  const sendTo = (descriptor: string, data: Buffer | string) =>
    new Promise<void>((resolve) => {
      const socket = sockets.get(descriptor);
      if (socket) socket.send(data, () => resolve());
      else resolve();
    });
  let inputEnded = terminal !== undefined;
  return {
    ended,
    close,
    send: (data) => sendTo('0', data),
    endInput() {
      if (!inputEnded) void sendTo('0', '');
      inputEnded = true;
    },
    resize: newestOnly(async ({ width, height }) => {
      const args = { width: String(width), height: String(height) };
      if (terminal) await sendTo('control', JSON.stringify({ command: 'window-resize', args }));
    }),
  };
}

/** Hands on what comes, one piece at a time, until it ends: by an empty text message, or by the connection's end. */
function takeAll(socket: WebSocket, stream: 'stdout' | 'stderr', onOutput: OnOutput): Promise<void> {
  return new Promise((resolve) => {
    const pieces = new InOrder(socket);
    const over = () => void pieces.taken.then(resolve);
    socket.on('message', (chunk: Buffer, isBinary: boolean) => {
      // A guest may print faster than a network carries it.
      if (isBinary) pieces.take(() => onOutput(stream, chunk));
      else over();
    });
    socket.once('close', over);
  });
}
