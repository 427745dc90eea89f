import { readdir } from 'node:fs/promises';
import { expect, test } from 'vitest';
import type { Clock } from '../../controller/clock.ts';
import { Host } from '../../controller/hosts/host.ts';
import { FarHost } from '../support/far-host.ts';

/** CI makes a thousand; fewer show the same, and sooner. */
const reconnects = Number(process.env['RECONNECTS'] ?? 300);

test(
  `${reconnects} reconnects leave no connection, stream, file or timer behind (RECONNECTS sets how many)`,
  { timeout: 180_000 },
  async () => {
    await using host = await FarHost.start();
    host.incus.requests.keep = 10;
    const { spec } = host.resource;
    const quiet = () => undefined;
    const subject = new Host({
      name: 'far',
      spec,
      controllerId: 'test',
      readKey: () => Promise.resolve(host.machine.privateKey),
      clock: hurried,
      namespaceLabels: () => ({}),
      events: { changed: quiet, drift: quiet, command: quiet, eventLag: quiet, request: quiet },
    });
    const connected = async (times: number) => {
      for (let time = 0; time < times; time += 1) {
        await expect.poll(() => subject.state.kind, { timeout: 20_000, interval: 1 }).toBe('up');
        host.machine.cut();
        await expect.poll(() => subject.state.kind, { timeout: 20_000, interval: 1 }).toBe('down');
      }
      await expect.poll(() => subject.state.kind, { timeout: 20_000, interval: 1 }).toBe('up');
      await expect.poll(() => host.machine.connections, { timeout: 20_000 }).toBe(1);
    };
    await connected(50);
    const before = await holdings(host);
    await connected(reconnects - 50);
    await expect.poll(() => holdings(host), { timeout: 20_000 }).toEqual(before);
    expect(host.machine.accepted).toBeGreaterThanOrEqual(reconnects);
    await subject.close();
    await expect.poll(() => host.machine.connections).toBe(0);
    await expect.poll(() => host.incus.connections).toBe(0);
  },
);

/** A clock on which pauses are a hundred times as short. */
const hurried: Clock = {
  now: () => Date.now(),
  after(milliseconds, run) {
    const timer = setTimeout(run, milliseconds / 100);
    return () => clearTimeout(timer);
  },
};

/** What this process holds open, on both ends. */
async function holdings(host: FarHost) {
  const resources = process.getActiveResourcesInfo();
  return {
    toMachine: host.machine.connections,
    toIncus: host.incus.connections,
    throughNetwork: host.network.connections,
    sockets: resources.filter((what) => what === 'TCPSocketWrap').length,
    files: (await readdir('/proc/self/fd')).length,
  };
}
