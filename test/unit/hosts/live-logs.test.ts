import { PassThrough } from 'node:stream';
import { expect, it } from 'vitest';
import { LiveLogs, passOn, type LogSource } from '../../../controller/hosts/live-logs.ts';
import type { IncusClient } from '../../../controller/incus/client.ts';

const log: LogSource = { instance: 'one', namespace: 'ns', name: 'job', uid: 'uid', attempt: 1 };
const client = { openFile: () => Promise.resolve(new PassThrough().end('text')) } as unknown as IncusClient;

it('the end of a log is no longer waited for once it is called back, and another try waits for what is being written', async () => {
  const { promise: room, resolve: goOn } = Promise.withResolvers<undefined>();
  const taken: string[] = [];
  const logs = new LiveLogs(
    passOn(async (_log, chunk) => {
      taken.push(chunk.toString());
      await room;
    }),
  );
  for (let tries = 0; tries < 2; tries += 1) {
    const stop = new AbortController();
    const first = logs.finish('host', client, log, stop.signal);
    await new Promise(setImmediate);
    stop.abort(new Error('called back'));
    await expect(first).rejects.toThrow('called back');
  }
  expect(taken).toEqual(['text']);
  goOn(undefined);
  await expect(logs.finish('host', client, log)).resolves.toBeUndefined();
});
