import { afterAll, beforeAll, expect, test } from 'vitest';
import { NetworkNamespace } from '../support/network-namespace.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { Tally } from './chaos-tally.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually } from './support/cluster.ts';

/*
 * A real sshd and a real Incus behind networks that fail as networks do. What the ways to a simulated host and to a
 * simulated API server do in such networks is in test/component/network-*.test.ts.
 */

let bench: Bench;
let tally: Tally;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true, hosts: 2 });
  tally = await Tally.start(bench.host);
});
afterAll(async () => {
  await tally[Symbol.asyncDispose]();
  await bench.stop();
});

test('a line that loses every packet, and one of a kilobyte a second: jobs end as they must', async () => {
  await using lossy = await NetworkNamespace.start(bench.hosts[0]!.sshd.port);
  const slow = await FaultProxy.start({ port: bench.hosts[1]!.sshd.port });
  slow.faults.bytesPerSecond = 1024;
  await using cluster = await Cluster.start(bench, {
    hosts: {
      lossy: { labels: { line: 'lossy' }, ssh: { address: lossy.address, port: lossy.port } },
      slow: { labels: { line: 'slow' }, ssh: { port: slow.port } },
    },
  });
  await cluster.apply('on-slow', { command: 'exit 6', hostSelector: { matchLabels: { line: 'slow' } } });
  await cluster.apply('on-lossy', {
    command: `${Tally.mark('on-lossy')}; sleep 3; exit 5`,
    hostSelector: { matchLabels: { line: 'lossy' } },
    mounts: [{ name: 'snapshot', source: tally.source }],
  });
  await eventually(
    () => Promise.resolve(tally.runs.length),
    (runs) => runs === 1,
    'it runs',
    60,
  );

  await lossy.drop();
  const isUp = async () => {
    const { status } = await cluster.host('lossy');
    return status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') ?? false;
  };
  await eventually(isUp, (up) => !up, 'the host is seen to be out of reach', 40);
  // The command has ended meanwhile, and nobody can know: nothing is decided.
  const waiting = await cluster.job('on-lossy');
  expect(waiting.status?.completionTime).toBeUndefined();

  await lossy.heal();
  const { status } = await cluster.finished('on-lossy', 60);
  expect(status).toMatchObject({ phase: 'Failed', exitCode: 5, attempt: 1, failure: { class: 'Test' } });
  expect(tally.runs).toHaveLength(1);

  const far = await cluster.finished('on-slow', 100);
  expect(far.status).toMatchObject({ phase: 'Failed', exitCode: 6, attempt: 1, failure: { class: 'Test' } });
  // On a busy machine a handshake may take too long for once; what is not to be is one connection after the other.
  expect(slow.accepted).toBeLessThanOrEqual(3);
  for (const host of bench.hosts) expect(await cluster.instances(host)).toEqual([]);
  await slow.close();
}, 240_000);
