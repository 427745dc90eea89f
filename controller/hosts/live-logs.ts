import { once } from 'node:events';
import type PQueue from 'p-queue';
import type WebSocket from 'ws';
import * as z from 'zod';
import { InOrder } from '../in-order.ts';
import type { IncusClient } from '../incus/client.ts';
import { instancePath, logPath } from '../incus/commands.ts';
import { IncusError } from '../incus/errors.ts';
import type { InstanceView } from '../incus/inventory.ts';

/** Whose log it is: an attempt of a CiJob, and its instance. */
export interface LogSource {
  instance: string;
  namespace: string;
  name: string;
  uid: string;
  attempt: number;
}

/** Where logs go. It says itself how much of one it has, so that going on needs no memory of ours. */
export interface LogSink {
  /** Bytes it has of a log; undefined when it has none. */
  size(log: LogSource): number | undefined;
  /** Takes a chunk that begins at byte `offset`. False: it takes no more of this log for now. */
  write(log: LogSource, offset: number, chunk: Buffer): Promise<boolean>;
  /** It is somebody who reads as slowly as they like, and is waited for. Left out: a disk, which is given up. */
  readonly patient?: boolean;
}

/** A connection to a host, over which logs come. */
export interface LogWay {
  /** Name of the IncusHost. */
  host: string;
  client: IncusClient;
  project: string;
  /** Lets as many logs be followed at once as the connection has streams for. */
  turns: PQueue;
}

/** Descriptors of an exec that waits for WebSockets, by number, each with its secret. */
const ExecMetadata = z.object({ fds: z.record(z.string(), z.string()) });

interface Follower {
  host: string;
  log: LogSource;
  stop: () => void;
  /** Ends when all that has come is written. */
  written: Promise<void>;
  /** The sink takes no more for now. */
  refused: boolean;
  /** It is read to its end. */
  whole: boolean;
}

/**
 * Logs of instances while they are written. One `tail` in the guest pushes what comes, so that a job that runs for
 * an hour costs no more requests than one that runs for a second; what it had not pushed when the runner ended is
 * read from the file.
 */
export class LiveLogs {
  readonly #sink: LogSink;
  readonly #followers = new Map<string, Follower>();

  constructor(sink: LogSink) {
    this.#sink = sink;
  }

  /**
   * Begins to follow an instance's log where the sink ends, as soon as it is its turn. One that cannot be followed is
   * read in one piece at the end.
   */
  follow(way: LogWay, log: LogSource): void {
    this.#begin(way, this.#of(way.host, log));
  }

  /** Goes on with all logs of a host, now that there is a new connection to it. */
  resume(way: LogWay): void {
    for (const follower of this.#followers.values()) {
      if (follower.host === way.host && !follower.whole) this.#begin(way, follower);
    }
  }

  /** Whether a log may take as long as its reader does. */
  get patient(): boolean {
    return this.#sink.patient ?? false;
  }

  /**
   * Reads what is left of a log, now that nobody writes it any more. Rejects with an {@link IncusError} when that was not
   * all of it; the next try goes on where this one ended.
   */
  async finish(host: string, client: IncusClient, log: LogSource, signal?: AbortSignal): Promise<void> {
    const follower = this.#of(host, log);
    follower.stop();
    try {
      await unlessAborted(follower.written, signal);
      follower.refused = false;
      const offset = this.#sink.size(log) ?? 0;
      const rest = await client.openFile(log.instance, logPath, offset, signal);
      let at = offset;
      for await (const chunk of (rest ?? []) as AsyncIterable<Buffer>) {
        const written = this.#sink.write(log, at, chunk);
        // Another try writes only after this piece, whenever that is with the sink.
        follower.written = written.then(noop, noop);
        if (!(await unlessAborted(written, signal))) break;
        at += chunk.length;
      }
      follower.whole = true;
    } catch (error) {
      throw unanswered(error);
    }
  }

  /** Forgets an instance. */
  forget(instance: string): void {
    this.#followers.get(instance)?.stop();
    this.#followers.delete(instance);
  }

  #of(host: string, log: LogSource): Follower {
    const follower = this.#followers.get(log.instance) ?? {
      host,
      log,
      stop: () => undefined,
      written: Promise.resolve(),
      refused: false,
      whole: false,
    };
    this.#followers.set(log.instance, follower);
    return follower;
  }

  #begin(way: LogWay, follower: Follower): void {
    follower.stop();
    const stop = new AbortController();
    follower.stop = () => stop.abort();
    follower.whole = false;
    const tail = () => this.#tail(way, follower, stop);
    void way.turns.add(tail, { signal: stop.signal }).catch(() => undefined);
  }

  /** Resolves when nothing more comes of this. */
  async #tail({ client, project }: LogWay, follower: Follower, stop: AbortController): Promise<void> {
    const { log } = follower;
    const { signal } = stop;
    await follower.written;
    follower.refused = false;
    let at = this.#sink.size(log) ?? 0;
    const operation = await client.start({
      method: 'POST',
      path: instancePath(project, log.instance, '/exec'),
      body: {
        command: ['tail', '-c', `+${at + 1}`, '-F', logPath],
        'wait-for-websocket': true,
        interactive: false,
      },
    });
    const { fds } = ExecMetadata.parse(operation.metadata);
    const sockets: WebSocket[] = [];
    const { promise: over, resolve: end } = Promise.withResolvers<undefined>();
    signal.addEventListener('abort', () => end(undefined), { once: true });
    const take = async (chunk: Buffer): Promise<void> => {
      if (follower.refused) return;
      if (await this.#sink.write(log, at, chunk)) {
        at += chunk.length;
        return;
      }
      // Whatever comes now would leave a gap. The rest is asked for again at the end.
      follower.refused = true;
      stop.abort();
    };
    try {
      for (const descriptor of ['0', '1', '2']) {
        if (signal.aborted) return;
        const socket = await client.operationSocket(operation.id, fds[descriptor] ?? '');
        socket.on('error', () => end(undefined));
        sockets.push(socket);
        if (descriptor === '1') {
          socket.on('close', () => end(undefined));
          const pieces = new InOrder(socket);
          socket.on('message', (chunk: Buffer, isBinary: boolean) => {
            if (!isBinary || signal.aborted) return;
            // A guest may print faster than a disk writes.
            pieces.take(() => take(chunk));
            follower.written = pieces.taken;
          });
        }
        await once(socket, 'open');
      }
      await over;
    } finally {
      for (const socket of sockets) socket.terminate();
    }
  }
}

/** Whose log an instance's is, as its labels tell. */
export function logSourceOf(instance: InstanceView | undefined): LogSource | undefined {
  const { namespace, name, uid, attempt } = instance?.labels ?? {};
  if (!instance || namespace === undefined || name === undefined || uid === undefined) return undefined;
  return { instance: instance.name, namespace, name, uid, attempt: Number(attempt ?? 1) };
}

/**
 * A sink that passes every log on, each byte once and in order, for as long as the process lives.
 *
 * @param onLog resolves when it can take more; the guest is not read any faster.
 */
export function passOn(onLog: (log: LogSource, chunk: Buffer) => Promise<void>): LogSink {
  const sizes = new Map<string, number>();
  return {
    patient: true,
    size: ({ instance }) => sizes.get(instance),
    async write(log, offset, chunk) {
      sizes.set(log.instance, offset + chunk.length);
      await onLog(log, chunk);
      return true;
    },
  };
}

/** What a promise brings. Rejects with the signal's reason when that comes first; what was promised goes on. */
async function unlessAborted<T>(promised: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  signal?.throwIfAborted();
  const done = new AbortController();
  const aborted =
    signal && once(signal, 'abort', { signal: done.signal }).then(() => signal.throwIfAborted());
  aborted?.catch(() => undefined);
  try {
    return await Promise.race([promised, ...(aborted ? [aborted as Promise<never>] : [])]);
  } finally {
    done.abort();
  }
}

const noop = (): void => undefined;

function unanswered(error: unknown): Error {
  if (error instanceof IncusError) return error;
  return new IncusError('Unknown', error instanceof Error ? error.message : String(error), 0, {
    cause: error,
  });
}
