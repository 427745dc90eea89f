import { afterAll, beforeAll, expect, test } from 'vitest';
import { NetworkNamespace } from '../support/network-namespace.ts';
import { Tally } from './chaos-tally.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually } from './support/cluster.ts';

/* A real API server behind a network that fails as networks do. */

let bench: Bench;
let tally: Tally;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true });
  tally = await Tally.start(bench.host);
});
afterAll(async () => {
  await tally[Symbol.asyncDispose]();
  await bench.stop();
});

test('an API server from which no packet comes any more: the controller steps down, and the next one takes up what ran', async () => {
  const { controlPlane } = bench;
  await using line = await NetworkNamespace.start(Number(new URL(controlPlane.server).port));
  await using cluster = await Cluster.start(bench, {
    kubeconfig: await controlPlane.adminKubeconfigBy(`https://${line.address}:${line.port}`),
  });
  const mounts = [{ name: 'snapshot', source: tally.source }];
  await cluster.apply('under-way', { command: `${Tally.mark('under-way')}; sleep 3; exit 5`, mounts });
  await eventually(
    () => Promise.resolve(tally.of('under-way').length),
    (runs) => runs === 1,
    'it runs',
    60,
  );

  await line.drop();
  // It ends, and others are made, while the controller can neither tell nor hear of it.
  await cluster.apply('meanwhile', { command: `${Tally.mark('meanwhile')}; exit 6`, mounts });
  const requests = async () => {
    const { body } = await cluster.controller.get('/metrics');
    return [...body.matchAll(/^rest_client_requests_total\{.*\} (\d+)$/gm)].reduce(
      (sum, [, count]) => sum + Number(count),
      0,
    );
  };
  const before = await requests();
  let last = before;
  const { daemon } = cluster.controller;
  await eventually(
    async () => {
      last = await requests().catch(() => last);
      return daemon.running;
    },
    (running) => !running,
    'a controller that cannot renew its lease ends by itself',
    60,
  );
  expect(daemon.exitCode).toBe(1);
  expect(cluster.controller.log().map(({ msg }) => msg)).toContain('the lease was lost');
  // A renewal every two seconds, and the watches now and then: no busy loop.
  expect(last - before).toBeLessThan(40);
  expect(tally.of('meanwhile')).toEqual([]);

  await line.heal();
  await daemon.start();
  const { status } = await cluster.finished('under-way');
  expect(status).toMatchObject({ phase: 'Failed', exitCode: 5, attempt: 1, failure: { class: 'Test' } });
  expect(await cluster.finished('meanwhile')).toMatchObject({ status: { exitCode: 6, attempt: 1 } });
  for (const job of ['under-way', 'meanwhile']) expect(tally.of(job), job).toHaveLength(1);
  expect(await cluster.instances()).toEqual([]);
}, 240_000);
