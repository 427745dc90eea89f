import { randomBytes } from 'node:crypto';
import type WebSocket from 'ws';

/** Streams that must be connected before the command starts. */
const needed = ['0', '1', '2'];

/** The WebSockets of an exec that waits for them: standard streams by number, and one for control. */
export class AttachedExec {
  /** Secret of each stream, as the operation's metadata shows them. */
  readonly fds: Readonly<Record<string, string>>;
  readonly #sockets = new Map<string, WebSocket>();
  readonly #onReady: () => void;
  readonly #onLeft: () => void;
  #over = false;

  /**
   * @param onReady called once when all three standard streams are connected.
   * @param onLeft called when the other side has closed one of them before the end.
   */
  constructor(onReady: () => void, onLeft: () => void) {
    const names = [...needed, 'control'];
    this.fds = Object.fromEntries(names.map((name) => [name, randomBytes(32).toString('hex')]));
    this.#onReady = onReady;
    this.#onLeft = onLeft;
  }

  /** Which stream a secret is for. */
  named(secret: string): string | undefined {
    return Object.keys(this.fds).find((name) => this.fds[name] === secret);
  }

  connected(name: string, socket: WebSocket): void {
    this.#sockets.set(name, socket);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      if (!this.#over && needed.includes(name)) this.#onLeft();
    });
    if (needed.includes(name) && needed.every((one) => this.#sockets.has(one))) this.#onReady();
  }

  /** Sends what the command printed. */
  print(text: string): void {
    this.#sockets.get('1')?.send(Buffer.from(text));
  }

  /** The command has ended: an empty text message on each output, then the connection just goes (measured). */
  end(): void {
    this.#over = true;
    for (const [name, socket] of this.#sockets) {
      if (name === '1' || name === '2') socket.send('');
      setImmediate(() => socket.terminate());
    }
  }
}
