import { Duplex } from 'node:stream';
import type { ClientChannel } from 'ssh2';

/**
 * A channel of ssh2 that behaves as Node's streams do. What relies on that, as HTTP's pool of kept-alive streams does,
 * would wait without end for the channel itself: one that has closed still takes what is written, and never says that
 * it is done with it; one that is destroyed is not `destroyed`; and one that the other side has ended stays open.
 */
export class ChannelStream extends Duplex {
  readonly #channel: ClientChannel;

  constructor(channel: ClientChannel) {
    super({ allowHalfOpen: false });
    this.#channel = channel;
    // Whoever has no use for it just then is not to die of it.
    this.on('error', () => undefined);
    channel.on('data', (chunk: Buffer) => {
      if (!this.push(chunk) && !this.destroyed) channel.pause();
    });
    channel.once('end', () => this.push(null));
    channel.on('error', (error: Error) => this.destroy(error));
    channel.once('close', () => {
      // What it brought before is still to be read.
      if (this.readableEnded) this.destroy();
      else this.once('end', () => this.destroy());
    });
  }

  override _read(): void {
    this.#channel.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#channel.write(chunk, done);
  }

  override _final(done: () => void): void {
    this.#channel.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    // It comes to its end only if it is read to it.
    this.#channel.resume();
    this.#channel.destroy();
    done(error);
  }
}
