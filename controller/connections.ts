import type { Socket } from 'node:net';
import type { Clock } from './clock.ts';

/** How many connections may be open for which no known user stands, and for how long, in milliseconds. */
export interface StrangerLimits {
  /** In all. */
  most: number;
  /** From one address. */
  ofAddress: number;
  /** To finish the TLS handshake and send the head of a request; and between two requests. */
  requestTime: number;
  /** For the answer to a request that has arrived, or until a known user stands for it. */
  reviewTime: number;
}

/** One request's time on its connection. */
export interface Stay {
  /** A known user stands for the connection: it has no deadline any more, and takes no stranger's place. */
  vouch(): void;
  /** The request was answered. Call it once. */
  end(): void;
}

interface Connection {
  readonly socket: Socket;
  readonly address: string;
  state: 'idle' | 'asking' | 'vouched';
  cancel: () => void;
}

/**
 * The connections of a server, from the first packet on. Nobody knows yet who has opened one: such strangers have a
 * deadline for all that they do, and there are so many of them at most. One more than that ends the oldest of the
 * address that has the most, first one that has not sent a request, and never the newest. So a flood ends its own
 * connections, and who brings a token comes in meanwhile, also from the same address (that of the API server's proxy is
 * the address of many).
 */
export class Connections {
  readonly #clock: Clock;
  readonly #limits: StrangerLimits;
  readonly #all = new Map<string, Connection>();
  /** Those for which nobody stands, the oldest first. */
  readonly #strangers = new Set<Connection>();

  constructor(clock: Clock, limits: StrangerLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Takes a new TCP connection in, before its TLS handshake. */
  admit(socket: Socket): void {
    // Already gone again.
    if (socket.remoteAddress === undefined) {
      socket.destroy();
      return;
    }
    const key = keyOf(socket);
    const address = socket.remoteAddress;
    const connection: Connection = { socket, address, state: 'idle', cancel: () => undefined };
    this.#all.set(key, connection);
    socket.once('close', () => {
      connection.cancel();
      this.#strangers.delete(connection);
      if (this.#all.get(key) === connection) this.#all.delete(key);
    });
    this.#estrange(connection);
    this.#makeRoom(connection);
  }

  /**
   * A request has arrived. Undefined when another one is under way on its connection: each has one at a time.
   *
   * @param socket its connection, or the TLS socket above it.
   */
  begin(socket: Socket): Stay | undefined {
    const connection = this.#all.get(keyOf(socket));
    if (!connection) return { vouch: () => undefined, end: () => undefined };
    if (connection.state !== 'idle') return undefined;
    connection.state = 'asking';
    this.#limit(connection, this.#limits.reviewTime);
    return {
      vouch: () => {
        connection.state = 'vouched';
        connection.cancel();
        this.#strangers.delete(connection);
      },
      end: () => this.#estrange(connection),
    };
  }

  /** Ends those for which nobody stands. */
  close(): void {
    for (const { socket } of this.#strangers) socket.destroy();
  }

  /** Whoever opened it is not known, or not any more. */
  #estrange(connection: Connection): void {
    if (connection.socket.destroyed) return;
    connection.state = 'idle';
    this.#strangers.add(connection);
    this.#limit(connection, this.#limits.requestTime);
  }

  #limit(connection: Connection, milliseconds: number): void {
    connection.cancel();
    connection.cancel = this.#clock.after(milliseconds, () => connection.socket.destroy());
  }

  #makeRoom(newest: Connection): void {
    const { address } = newest;
    const { most, ofAddress } = this.#limits;
    const counts = new Map<string, number>();
    for (const one of this.#strangers) counts.set(one.address, (counts.get(one.address) ?? 0) + 1);
    if ((counts.get(address) ?? 0) > ofAddress) this.#drop(address, newest);
    else if (this.#strangers.size > most) this.#drop(fullest(counts), newest);
  }

  #drop(address: string, newest: Connection): void {
    const there = [...this.#strangers].filter((one) => one.address === address && one !== newest);
    const one = there.find(({ state }) => state === 'idle') ?? there[0];
    if (!one) return;
    // At once, not when its end is told: the next one may come before that.
    this.#strangers.delete(one);
    one.socket.destroy();
  }
}

function fullest(counts: ReadonlyMap<string, number>): string {
  const [most] = [...counts].sort(([, one], [, other]) => other - one);
  return most?.[0] ?? '';
}

/** What tells connections of one server apart; a TLS socket has the same as what is below it. */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return [remoteAddress, remotePort, localAddress, localPort].join(' ');
}
