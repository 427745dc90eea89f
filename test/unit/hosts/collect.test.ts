import { describe, expect, it } from 'vitest';
import { collect, collectLimit } from '../../../controller/hosts/collect.ts';
import type { LiveLogs } from '../../../controller/hosts/live-logs.ts';
import type { Turns } from '../../../controller/hosts/session.ts';
import type { GuestFile, IncusClient } from '../../../controller/incus/client.ts';
import { logPath, resultPath } from '../../../controller/incus/commands.ts';
import { IncusError, type IncusErrorKind } from '../../../controller/incus/errors.ts';
import { Inventory } from '../../../controller/incus/inventory.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const file = (text: string): GuestFile => ({ kind: 'file', size: text.length, bytes: Buffer.from(text) });
const error = (kind: IncusErrorKind) => Promise.reject(new IncusError(kind, `it is ${kind}`));
/** A read that never ends by itself. */
const never = (signal?: AbortSignal) =>
  new Promise<never>((_resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason as Error));
  });
type Read = (signal?: AbortSignal) => Promise<GuestFile>;
const result: Read = () => Promise.resolve(file('the result'));
const log: Read = () => Promise.resolve(file('the log'));

describe('what is collected of a guest', () => {
  const clock = new ManualClock();

  function reading(
    reads: { result?: Read; log?: Read; logs?: LiveLogs },
    part: object = {},
    signal?: AbortSignal,
  ) {
    const files: Record<string, Read> = { [resultPath]: reads.result ?? result, [logPath]: reads.log ?? log };
    const client = {
      readFile: (_instance: string, path: string, _part: unknown, over?: AbortSignal) => files[path]!(over),
    } as unknown as IncusClient;
    const inventory = new Inventory();
    inventory.put('one', {
      ...{ name: 'one', type: 'container', status: 'Running', devices: {}, profiles: [] },
      config: { 'user.cijob.namespace': 'ns', 'user.cijob.name': 'job', 'user.cijob.uid': 'uid' },
      last_used_at: '2026-01-01T00:00:00Z',
    });
    const ground = { client, clock, turns: {} as Turns, inventory, host: 'h' };
    const command = { verb: 'collect', instance: 'one', artifacts: [], ...part } as const;
    return collect(command, { ...ground, logs: reads.logs, artifacts: undefined }, signal);
  }

  it('is its result, and the end of its log', async () => {
    const collected = { result: file('the result'), log: file('the log') };
    expect(await reading({})).toEqual({ kind: 'collected', collected });
  });

  it('is its result alone, where the guest keeps the log back', async () => {
    const collected = {
      result: file('the result'),
      log: { kind: 'missing' },
      missed: 'the end of the log: it is TooSlow',
    };
    expect(await reading({ log: () => error('TooSlow') })).toEqual({ kind: 'collected', collected });
  });

  it.each(['Unknown', 'ServerError'] as const)(
    'is worth another try where that may bring the log (%s), unless the result is enough',
    async (kind) => {
      await expect(reading({ log: () => error(kind) })).rejects.toMatchObject({ kind });
      expect(await reading({ log: () => error(kind) }, { resultOnly: true })).toMatchObject({
        collected: { result: file('the result'), missed: `the end of the log: it is ${kind}` },
      });
    },
  );

  it.each(['TooSlow', 'Unknown'] as const)('is nothing without a result (%s)', async (kind) => {
    await expect(reading({ result: () => error(kind) }, { resultOnly: true })).rejects.toMatchObject({
      kind,
    });
  });

  it('has no read of its own left when it fails: the next try is alone', async () => {
    let ended = false;
    const slow = (signal?: AbortSignal) => never(signal).finally(() => (ended = true));
    await expect(reading({ result: () => error('Unknown'), log: slow })).rejects.toMatchObject({
      message: 'it is Unknown',
    });
    expect(ended).toBe(true);
  });

  it.each([
    ['the time for it is over', {}, collectLimit],
    ['the little time that a job has which is called off', { withinMs: 15_000 }, 15_000],
  ])('is what was read by then, when %s', async (_when, part, time) => {
    let settled = false;
    const waiting = reading({ log: never }, part).finally(() => (settled = true));
    clock.advance(time - 1);
    await new Promise(setImmediate);
    expect(settled).toBe(false);
    clock.advance(1);
    expect(await waiting).toMatchObject({
      collected: {
        result: file('the result'),
        missed: 'the end of the log: there was no time left to read it',
      },
    });
    const nothing = reading({ result: never }, part);
    clock.advance(time);
    await expect(nothing).rejects.toMatchObject({ kind: 'TooSlow' });
  });

  it('has the whole log of one who is waited for, however long it takes, unless another read fails', async () => {
    const { promise: read, resolve: whole } = Promise.withResolvers<undefined>();
    const finish = (_host: string, _client: unknown, _log: unknown, over?: AbortSignal) =>
      Promise.race([read, never(over)]);
    const patient = { patient: true, finish } as unknown as LiveLogs;
    const waiting = reading({ logs: patient });
    const failing = reading({ logs: patient, result: () => error('Unknown') });
    await expect(failing).rejects.toMatchObject({ message: 'it is Unknown' });
    const parting = reading({ logs: patient }, { withinMs: 15_000 });
    clock.advance(2 * collectLimit);
    expect(await parting).toMatchObject({
      collected: { missed: expect.stringContaining('the log') as string },
    });
    const cut = reading({
      logs: { patient: true, finish: () => read.then(() => error('Unknown')) } as unknown as LiveLogs,
    });
    clock.advance(2 * collectLimit);
    whole(undefined);
    await expect(cut).rejects.toMatchObject({ kind: 'Unknown' });
    expect((await waiting) as object).toEqual({
      kind: 'collected',
      collected: { result: file('the result'), log: file('the log') },
    });
  });

  it('is what was read by then, when it is called back', async () => {
    const stop = new AbortController();
    const waiting = reading({ log: never }, {}, stop.signal);
    await new Promise(setImmediate);
    stop.abort();
    expect(await waiting).toMatchObject({ kind: 'collected', collected: { result: file('the result') } });
  });
});
