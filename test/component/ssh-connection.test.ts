import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openLink, type Link } from '../../controller/hosts/link.ts';
import { FarHost } from '../support/far-host.ts';

/* A connection that works, to a machine that does not answer. */

let far: FarHost;
let link: Link;
beforeEach(async () => {
  far = await FarHost.start();
  link = await openLink(far.resource.spec.connection, () => Promise.resolve(far.machine.privateKey));
});
afterEach(async () => {
  vi.useRealTimers();
  link.close();
  await far[Symbol.asyncDispose]();
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
