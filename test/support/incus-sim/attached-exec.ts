import { randomBytes } from 'node:crypto';
import type WebSocket from 'ws';

/** What the other side of an attached exec does. */
export interface Attachment {
  /** All streams that must be connected before the command starts are. */
  ready(): void;
  /** It has closed a stream before the end. */
  left(): void;
  input(data: string): void;
  endOfInput(): void;
  resize(width: number, height: number): void;
}

/** The WebSockets of an exec that waits for them: standard streams by number, or a terminal, and one for control. */
export class AttachedExec {
  /** Secret of each stream, as the operation's metadata shows them. */
  readonly fds: Readonly<Record<string, string>>;
  readonly #interactive: boolean;
  /** Streams that must be connected before the command starts. */
  readonly #needed: readonly string[];
  readonly #sockets = new Map<string, WebSocket>();
  readonly #other: Attachment;
  #over = false;
  #letGo: () => void = () => undefined;

  constructor(interactive: boolean, other: Attachment) {
    this.#interactive = interactive;
    this.#needed = interactive ? ['0'] : ['0', '1', '2'];
    const names = [...this.#needed, 'control'];
    this.fds = Object.fromEntries(names.map((name) => [name, randomBytes(32).toString('hex')]));
    this.#other = other;
  }

  /** Which stream a secret is for. */
  named(secret: string): string | undefined {
    return Object.keys(this.fds).find((name) => this.fds[name] === secret);
  }

  connected(name: string, socket: WebSocket): void {
    this.#sockets.set(name, socket);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      if (name === '0') this.#letGo();
      // One who only lets go of a terminal leaves its command running.
      if (!this.#over && (name === 'control') === this.#interactive) this.#other.left();
    });
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      if (name === 'control') this.#control(data.toString());
      else if (name === '0' && isBinary) this.#other.input(data.toString());
      else if (name === '0') this.#other.endOfInput();
    });
    if (this.#needed.includes(name) && this.#needed.every((one) => this.#sockets.has(one)))
      this.#other.ready();
  }

  /** Sends what the command printed. */
  print(text: string): void {
    this.#sockets.get(this.#interactive ? '0' : '1')?.send(Buffer.from(text));
  }

  /**
   * The command has ended: an empty text message on each output, then the connections just go (measured). A terminal's
   * goes when the other side has let go of it, and only then is the exec over. `done` is called when it is.
   */
  end(done: () => void): void {
    this.#over = true;
    const terminal = this.#interactive ? this.#sockets.get('0') : undefined;
    for (const [name, socket] of this.#sockets) {
      const go = () => {
        if (socket !== terminal) socket.terminate();
      };
      if (name === '1' || name === '2' || socket === terminal) socket.send('', go);
      else setImmediate(go);
    }
    if (terminal && terminal.readyState !== terminal.CLOSED) this.#letGo = done;
    else done();
  }

  #control(text: string): void {
    const { command, args } = JSON.parse(text) as { command: string; args: Record<string, string> };
    if (command === 'window-resize') this.#other.resize(Number(args['width']), Number(args['height']));
  }
}
