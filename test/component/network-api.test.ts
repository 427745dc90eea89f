import { KubeConfig } from '@kubernetes/client-node';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '../../controller/clock.ts';
import { KubeClient } from '../../controller/kube/client.ts';
import { Reflector, type ReflectorLimits } from '../../controller/kube/reflector.ts';
import { Transport } from '../../controller/kube/transport.ts';
import { FakeApiServer } from '../support/fake-api-server.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { widgets, widgetWriter, type Widget } from '../support/widgets.ts';

/*
 * What a bad network does to the way to the API server. What a bad API server does is in kube/reflector.test.ts.
 */

let server: FakeApiServer;
let network: FaultProxy;
let transport: Transport;
let cluster: ReturnType<typeof widgetWriter>;
let reflector: Reflector<Widget> | undefined;

beforeEach(async () => {
  server = await FakeApiServer.start();
  network = await FaultProxy.start({ port: Number(new URL(server.url).port) });
  cluster = widgetWriter(server.store);
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    { name: 'far', server: `http://127.0.0.1:${network.port}`, skipTLSVerify: true },
    { name: 'far', token: 'a token' },
  );
  transport = new Transport({ config, clock: systemClock, userAgent: 'test/1' });
});
afterEach(async () => {
  network.faults.blackHole = false;
  await reflector?.stop();
  transport.close();
  await network.close();
  await server.stop();
});

function reflect(limits: Partial<ReflectorLimits>): Reflector<Widget> {
  reflector = new Reflector({
    client: new KubeClient(transport),
    clock: systemClock,
    resource: widgets,
    query: { namespace: 'ci' },
    onChange: () => undefined,
    onError: () => undefined,
    limits,
  });
  reflector.start();
  return reflector;
}

const sees = (view: Record<string, number>) =>
  vi.waitFor(
    () => {
      const seen = reflector!.list().map((one) => [one.metadata.name, one.spec.size] as const);
      expect(Object.fromEntries(seen)).toEqual(view);
    },
    { timeout: 40_000, interval: 10 },
  );

test('a watch over which nothing comes any more is given up, and what happened meanwhile is seen', async () => {
  cluster.create('a', 1);
  reflect({ silenceMs: 1_000, answerMs: 1_000 });
  await sees({ a: 1 });
  await expect.poll(() => server.store.watchers).toBe(1);
  const connected = network.accepted;
  network.faults.blackHole = true;
  cluster.resize('a', 2);
  await new Promise((resolve) => setTimeout(resolve, 8_000));
  // It has tried again, and not at a rate that would hurt.
  expect(network.accepted - connected).toBeGreaterThanOrEqual(2);
  expect(network.accepted - connected).toBeLessThanOrEqual(10);
  expect(reflector!.list()[0]?.spec.size).toBe(1);
  network.faults.blackHole = false;
  await sees({ a: 2 });
});

test(
  'a list over a slow line with latency arrives in one piece and with one request',
  { timeout: 60_000 },
  async () => {
    const wanted: Record<string, number> = {};
    for (let index = 0; index < 100; index += 1) {
      cluster.create(`widget-${index}`, index);
      wanted[`widget-${index}`] = index;
    }
    network.faults.latencyMs = 500;
    network.faults.bytesPerSecond = 4096;
    // Silence for this long would end it; the whole takes longer.
    reflect({ answerMs: 3_000, silenceMs: 3_000 });
    const started = performance.now();
    await sees(wanted);
    expect(performance.now() - started).toBeGreaterThan(3_000);
    expect(server.count('list')).toBe(1);
  },
);

test('a thousand reconnects miss no change and leave no connection', { timeout: 120_000 }, async () => {
  reflect({ backoff: { baseMs: 1, maxMs: 5 }, healthyAfterMs: 0 });
  cluster.create('a', 0);
  for (let size = 1; size <= 1000; size += 1) {
    cluster.resize('a', size);
    await vi.waitFor(() => expect(reflector!.list()[0]?.spec.size).toBe(size), {
      timeout: 20_000,
      interval: 1,
    });
    network.reset();
  }
  await expect.poll(() => server.store.watchers).toBe(1);
  expect(network.accepted).toBeGreaterThanOrEqual(900);
  await expect.poll(() => network.connections).toBeLessThanOrEqual(2);
  expect(server.sockets.size).toBeLessThanOrEqual(2);
  // A request or two for each life of a connection.
  expect(server.requests.length).toBeLessThan(4000);
});
