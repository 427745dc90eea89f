import type { IncomingMessage } from 'node:http';
import type { Readable, Writable } from 'node:stream';
import WebSocket from 'ws';
import {
  channels,
  endOfInputMessage,
  framed,
  maxMessageBytes,
  parseEnd,
  resizeMessage,
  shellProtocol,
  type ShellEnd,
  type TerminalSize,
} from '../kube/shell-protocol.ts';
import { proxiedQuery } from '../kube/shell-request.ts';
import type { ServerAccess } from './server-access.ts';
import { readRefusal } from './server-refused.ts';

/** The three streams of the one who has the shell, and the size of their terminal, if they have one. */
export interface ShellStreams {
  stdin: Readable;
  stdout: Writable;
  stderr: Writable;
  /** Called with what is to hear of each new size. */
  onResize?: (hear: (size: TerminalSize) => void) => void;
}

/** An output piece of a guest, at most: what Incus sends at once and a little more. */
const maxPieceBytes = 2 * 2 ** 20;
const beat = 10_000;
/** A connection on which nothing is heard for so long, not even an answer to a ping, is lost, in milliseconds. */
const silenceLimit = 90_000;
/** Bytes of input sent at a time. */
const pieceBytes = maxMessageBytes / 2;

/** Opens the WebSocket of a shell. Rejects with ServerRefused, or the system's error when nobody can be reached. */
export function connectShell(access: ServerAccess, target: URL): Promise<WebSocket> {
  const url = new URL(target);
  url.protocol = target.protocol === 'http:' ? 'ws:' : 'wss:';
  const socket = new WebSocket(url, [shellProtocol], {
    ...access.options,
    headers: Object.assign({}, access.options.headers, { [proxiedQuery]: url.searchParams.toString() }),
    perMessageDeflate: false,
    maxPayload: maxPieceBytes,
    handshakeTimeout: 60_000,
  });
  return new Promise((resolve, reject) => {
    socket.once('open', () => {
      // What comes at once waits for somebody who listens.
      socket.pause();
      resolve(socket);
    });
    socket.once('error', reject);
    socket.once('unexpected-response', (_request: unknown, answer: IncomingMessage) => {
      readRefusal(answer, access).then(reject, reject);
    });
  });
}

/** Carries bytes between the streams and the shell until it ends. Resolves with how it ended; never rejects. */
export function converse(socket: WebSocket, streams: ShellStreams): Promise<ShellEnd> {
  const { stdin, stdout, stderr, onResize } = streams;
  const { promise, resolve } = Promise.withResolvers<ShellEnd>();
  const broken = (message: string) => resolve({ kind: 'broken', reason: 'ConnectionLost', message });
  let heardAt = performance.now();
  const hear = () => {
    heardAt = performance.now();
  };
  const timer = setInterval(() => {
    socket.ping();
    if (socket.isPaused) hear();
    else if (performance.now() - heardAt > silenceLimit) broken('the connection to the controller was lost');
  }, beat);
  const write = (to: Writable, chunk: Buffer) => {
    if (chunk.length === 0 || to.write(chunk)) return;
    socket.pause();
    // An output that fails takes nothing more, and holds nothing up.
    const goOn = () => {
      to.off('drain', goOn).off('error', goOn);
      socket.resume();
    };
    to.on('drain', goOn).on('error', goOn);
  };
  socket.on('message', (message: Buffer) => {
    hear();
    const payload = message.subarray(1);
    if (message[0] === channels.stdout) write(stdout, payload);
    else if (message[0] === channels.stderr) write(stderr, payload);
    else if (message[0] === channels.error) resolve(parseEnd(payload));
  });
  for (const sign of ['ping', 'pong'] as const) socket.on(sign, hear);
  socket.on('close', () => broken('the connection to the controller broke'));
  socket.on('error', (error) => broken(error.message));
  stdin.on('data', (data: Buffer) => {
    stdin.pause();
    void sendAll(socket, data).then(() => stdin.resume());
  });
  stdin.once('end', () => socket.send(endOfInputMessage(), () => undefined));
  onResize?.((size) => socket.send(resizeMessage(size), () => undefined));
  socket.resume();
  return promise.finally(() => {
    clearInterval(timer);
    stdin.removeAllListeners('data');
    stdin.pause();
    socket.close();
    // Whoever has said how it ended has nothing more to say.
    setTimeout(() => socket.terminate(), 1_000).unref();
  });
}

async function sendAll(socket: WebSocket, data: Buffer): Promise<void> {
  for (let at = 0; at < data.length; at += pieceBytes) {
    const piece = framed(channels.stdin, data.subarray(at, at + pieceBytes));
    await new Promise<void>((resolve) => socket.send(piece, () => resolve()));
  }
}
