import { EventEmitter } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import type WebSocket from 'ws';
import { expect, it } from 'vitest';
import { openShell } from '../../../controller/hosts/shell.ts';
import type { IncusClient } from '../../../controller/incus/client.ts';

/** A WebSocket of an exec that takes nothing until it is drained. */
class StuckSocket extends EventEmitter {
  readonly sent: string[] = [];
  readonly #waiting: (() => void)[] = [];

  send(data: Buffer | string, done: () => void): void {
    this.sent.push(data.toString());
    this.#waiting.push(done);
  }

  drain(): void {
    for (const done of this.#waiting.splice(0)) done();
  }

  terminate(): void {
    this.emit('close');
  }

  pause(): void {
    // Nothing comes from it.
  }

  resume(): void {
    // Nothing comes from it.
  }
}

async function open(terminal: { term: string; width: number; height: number } | undefined) {
  const sockets = new Map<string, StuckSocket>();
  const client = {
    readFile: () => Promise.resolve({ kind: 'missing' }),
    start: () =>
      Promise.resolve({ id: 'op', metadata: { fds: { control: 'control', 0: '0', 1: '1', 2: '2' } } }),
    operationSocket(_operation: string, secret: string) {
      const socket = new StuckSocket();
      sockets.set(secret, socket);
      setImmediate(() => socket.emit('open'));
      return Promise.resolve(socket as unknown as WebSocket);
    },
    operationEnd: () => Promise.resolve({ metadata: { return: 0 } }),
  } as unknown as IncusClient;
  const shell = await openShell(client, 'default', 'guest', { root: false, terminal }, () =>
    Promise.resolve(),
  );
  return {
    shell,
    sent: (name: string) => sockets.get(name)?.sent,
    drain: () => sockets.get('control')?.drain(),
  };
}

it('ten thousand sizes for a guest that takes none are two: the one on its way, and the newest', async () => {
  const { shell, sent, drain } = await open({ term: 'xterm', width: 80, height: 24 });
  for (let width = 1; width <= 10_000; width += 1) shell.resize({ width, height: 24 });
  const size = (width: string) => JSON.stringify({ command: 'window-resize', args: { width, height: '24' } });
  expect(sent('control')).toEqual([size('1')]);
  drain();
  await turn();
  expect(sent('control')).toEqual([size('1'), size('10000')]);
});

it('input ends once, however often that is said', async () => {
  const { shell, sent } = await open(undefined);
  for (let count = 0; count < 10_000; count += 1) shell.endInput();
  expect(sent('0')).toEqual(['']);
});
