import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** Where a proxy leads: a TCP port of this machine, or a unix socket. */
export type ProxyTarget = { port: number } | { path: string };

/** What befalls the bytes that go through. May be changed at any time, also for open connections. */
export interface ProxyFaults {
  /** Each piece comes this much later, one way, in milliseconds. */
  latencyMs: number;
  /** At most this many bytes a second, each way, for each connection. */
  bytesPerSecond: number;
  /**
   * Nothing gets through either way, and no connection is closed, as when packets are dropped: what is sent
   * meanwhile is held back, and comes when the hole closes.
   */
  blackHole: boolean;
  /** New connections are closed at once. */
  refuse: boolean;
}

/** How often a held connection looks whether it may go on, in milliseconds. */
const recheck = 20;
/** How much is on the road at once before the sender is held up, in bytes. */
const roomOnTheRoad = 256 * 1024;

/**
 * A proxy on a loopback port in front of a real server, that lets a network's troubles happen. Timing is the
 * machine's own: tests look at what happens, not at when.
 */
export class FaultProxy {
  readonly faults: ProxyFaults = {
    latencyMs: 0,
    bytesPerSecond: Infinity,
    blackHole: false,
    refuse: false,
  };
  /** How many connections were ever made. */
  accepted = 0;
  readonly #target: ProxyTarget;
  readonly #server: Server;
  readonly #open = new Set<[near: Socket, far: Socket]>();
  #closed = false;

  private constructor(target: ProxyTarget) {
    this.#target = target;
    // A half that ends is passed on as such: the other half goes on.
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#pass(socket));
  }

  static async start(target: ProxyTarget): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
    await new Promise<void>((resolve) => {
      proxy.#server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#open.size;
  }

  /** Resets every open connection (RST). */
  reset(): void {
    for (const [near, far] of this.#open) {
      near.resetAndDestroy();
      far.destroy();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const socket of [...this.#open].flat()) socket.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  #pass(near: Socket): void {
    this.accepted += 1;
    if (this.faults.refuse) {
      near.resetAndDestroy();
      return;
    }
    const far = connect({ ...this.#target, allowHalfOpen: true, noDelay: true });
    const pair: [Socket, Socket] = [near, far];
    this.#open.add(pair);
    this.#road(near, far);
    this.#road(far, near);
    near.once('close', () => far.destroyed && this.#open.delete(pair));
    far.once('close', () => near.destroyed && this.#open.delete(pair));
  }

  /** One way through the proxy. */
  #road(from: Socket, to: Socket): void {
    const onTheRoad: { chunk: Buffer; due: number }[] = [];
    let bytes = 0;
    let moving = false;
    let ending = false;
    const move = async () => {
      if (moving) return;
      moving = true;
      for (let next = onTheRoad.shift(); next; next = onTheRoad.shift()) {
        await this.#held(next.chunk.length, next.due);
        bytes -= next.chunk.length;
        if (to.destroyed) break;
        if (!to.write(next.chunk)) await drained(to);
        if (bytes < roomOnTheRoad) from.resume();
      }
      moving = false;
      if (ending && !to.destroyed) to.end();
    };
    from.on('data', (chunk: Buffer) => {
      const due = performance.now() + this.faults.latencyMs;
      // A slow line brings a little all the time, not all after a long while.
      const piece = Math.max(1, Math.floor(Math.min(chunk.length, this.faults.bytesPerSecond / 4)));
      for (let at = 0; at < chunk.length; at += piece) {
        onTheRoad.push({ chunk: chunk.subarray(at, at + piece), due });
      }
      bytes += chunk.length;
      if (bytes >= roomOnTheRoad) from.pause();
      void move();
    });
    from.once('end', () => {
      ending = true;
      void this.#held(0, 0).then(move);
    });
    from.on('error', () => undefined);
    // What dies behind a black hole dies unheard.
    from.once('close', () => void this.#held(0, 0).then(() => (ending ? undefined : to.destroy())));
  }

  /** Waits as long as a piece of that many bytes is held up. */
  async #held(bytes: number, due: number): Promise<void> {
    const { faults } = this;
    await until(due);
    while (faults.blackHole && !this.#closed) await pause(recheck);
    if (faults.bytesPerSecond !== Infinity)
      await until(performance.now() + (bytes / faults.bytesPerSecond) * 1000);
  }
}

/** Resolves when there is room again, or never will be. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done).off('close', done);
      resolve();
    };
    socket.on('drain', done).on('close', done);
  });
}

/** Timers may fire up to a millisecond early. */
async function until(due: number): Promise<void> {
  for (let wait = due - performance.now(); wait > 0; wait = due - performance.now()) await pause(wait);
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref());
}
