import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openLink, type Link } from '../../controller/hosts/link.ts';
import { HttpPipe } from '../../controller/incus/http.ts';
import { FarHost } from '../support/far-host.ts';

/* What becomes of requests over a connection when the other side lets them down. */

let far: FarHost;
let link: Link;
let pipe: HttpPipe;
let streams: Duplex[];
beforeEach(async () => {
  far = await FarHost.start();
  link = await openLink(far.resource.spec.connection, () => Promise.resolve(far.machine.privateKey));
  streams = [];
  const dial = async () => {
    const stream = await link.dial();
    streams.push(stream);
    return stream;
  };
  pipe = new HttpPipe(dial, { requests: 8, reads: 8 });
});
afterEach(async () => {
  vi.useRealTimers();
  pipe.close();
  link.close();
  await far[Symbol.asyncDispose]();
});

const ask = () => pipe.request({ method: 'GET', path: '/1.0', maxBytes: 100_000, timeout: 30_000 });

test('streams that Incus has closed, because nothing was asked on them, are not used again', async () => {
  await Promise.all(Array.from({ length: 8 }, ask));
  far.incus.cutConnections();
  // Until word of it is here: a request that was sent before that is lost.
  await expect.poll(() => streams.map(({ closed }) => closed)).toEqual(streams.map(() => true));
  expect(far.incus.connections).toBe(0);
  for (let count = 0; count < 8; count += 1) expect(await ask()).toMatchObject({ status: 200 });
});

test('a request is not waited for on a connection that has been cut', async () => {
  await ask();
  far.machine.cut();
  await link.closed;
  await expect(ask()).rejects.toMatchObject({ kind: 'Unknown' });
});

test('a connection whose SFTP has gone is given up, for one that has all', async () => {
  await expect(link.resolve('/var')).resolves.toMatchObject({ directory: true });
  far.machine.killSftp();
  await expect(link.closed).resolves.toBe('the connection was closed');
});

test('a stream that is neither opened nor refused is given up, and one that comes too late is closed', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  far.machine.policy.silent = true;
  const asked = link.dial();
  const end = expect(asked).rejects.toMatchObject({
    reason: 'Unreachable',
    message: 'no answer within 30 s',
  });
  vi.advanceTimersByTime(30_000);
  await end;
  vi.useRealTimers();
  await expect.poll(() => far.machine.unanswered).toBe(1);
  const toIncus = vi.spyOn(far.incus, 'connect');
  far.machine.answer();
  const late = toIncus.mock.results[0]?.value as Duplex;
  await once(late, 'close');

  far.machine.policy.silent = false;
  await expect(link.dial()).resolves.toBeDefined();
});
