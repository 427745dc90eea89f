import { once } from 'node:events';
import type WebSocket from 'ws';
import * as z from 'zod';
import type { IncusClient } from '../incus/client.ts';
import { instancePath, logPath } from '../incus/commands.ts';

/** Receives the log of an instance, every byte once and in order. */
export type OnLog = (instance: string, chunk: Buffer) => void;

/** Descriptors of an exec that waits for WebSockets, by number, each with its secret. */
const ExecMetadata = z.object({ fds: z.record(z.string(), z.string()) });

interface Follower {
  bytes: number;
  stop: () => void;
}

/**
 * Logs of instances while they are written. One `tail` in the guest pushes what comes, so that a job that runs for
 * an hour costs no more requests than one that runs for a second; what it had not pushed when the runner ended is
 * read from the file.
 */
export class LiveLogs {
  readonly #onLog: OnLog;
  readonly #followers = new Map<string, Follower>();

  constructor(onLog: OnLog) {
    this.#onLog = onLog;
  }

  /** Begins to follow an instance's log. A log that cannot be followed is read in one piece at the end. */
  follow(client: IncusClient, project: string, instance: string): void {
    const stop = new AbortController();
    const follower = this.#followers.get(instance) ?? { bytes: 0, stop: () => undefined };
    follower.stop();
    follower.stop = () => stop.abort();
    this.#followers.set(instance, follower);
    void this.#tail(client, project, instance, follower, stop.signal).catch(() => undefined);
  }

  /** Reads what is left of a log, now that nobody writes it any more. */
  async finish(client: IncusClient, instance: string): Promise<void> {
    const follower = this.#followers.get(instance) ?? { bytes: 0, stop: () => undefined };
    follower.stop();
    this.#followers.set(instance, follower);
    const rest = await client.openFile(instance, logPath, follower.bytes);
    if (!rest) return;
    for await (const chunk of rest as AsyncIterable<Buffer>) this.#take(instance, follower, chunk);
  }

  /** Forgets an instance. */
  forget(instance: string): void {
    this.#followers.get(instance)?.stop();
    this.#followers.delete(instance);
  }

  #take(instance: string, follower: Follower, chunk: Buffer): void {
    follower.bytes += chunk.length;
    this.#onLog(instance, chunk);
  }

  async #tail(
    client: IncusClient,
    project: string,
    instance: string,
    follower: Follower,
    signal: AbortSignal,
  ): Promise<void> {
    const operation = await client.start({
      method: 'POST',
      path: instancePath(project, instance, '/exec'),
      body: {
        command: ['tail', '-c', `+${follower.bytes + 1}`, '-F', logPath],
        'wait-for-websocket': true,
        interactive: false,
      },
    });
    const { fds } = ExecMetadata.parse(operation.metadata);
    const sockets: WebSocket[] = [];
    const close = () => {
      for (const socket of sockets) socket.terminate();
    };
    signal.addEventListener('abort', close, { once: true });
    for (const descriptor of ['0', '1', '2']) {
      const socket = await client.operationSocket(operation.id, fds[descriptor] ?? '');
      socket.on('error', close);
      sockets.push(socket);
      if (descriptor === '1') {
        socket.on('message', (chunk: Buffer, isBinary: boolean) => {
          if (isBinary && !signal.aborted) this.#take(instance, follower, chunk);
        });
      }
      await once(socket, 'open');
    }
    if (signal.aborted) close();
  }
}
