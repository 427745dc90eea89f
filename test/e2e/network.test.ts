import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { clearAway } from '../support/left-under.ts';
import { NetworkNamespace } from '../support/network-namespace.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { Tally } from './chaos-tally.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually } from './support/cluster.ts';
import { ControllerProcess } from './support/controller.ts';
import { systemNamespace } from './support/hosts.ts';

/*
 * A real sshd, a real Incus and a real API server behind networks that fail as networks do. What the ways to a
 * simulated host and to a simulated API server do in such networks is in test/component/network-*.test.ts.
 */

let bench: Bench;
let tally: Tally;
let lossy: NetworkNamespace;
let slow: FaultProxy;
let cluster: Cluster;
let dir: string;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true, hosts: 2 });
  dir = await makeTempDir('far');
  tally = await Tally.start(bench.host);
  lossy = await NetworkNamespace.start(bench.hosts[0]!.sshd.port);
  slow = await FaultProxy.start({ port: bench.hosts[1]!.sshd.port });
  slow.faults.bytesPerSecond = 1024;
  cluster = await Cluster.start(bench, {
    hosts: {
      lossy: { labels: { line: 'lossy' }, ssh: { address: lossy.address, port: lossy.port } },
      slow: { labels: { line: 'slow' }, ssh: { port: slow.port } },
    },
  });
});
afterAll(async () => {
  await cluster.stop();
  await slow.close();
  await lossy[Symbol.asyncDispose]();
  await tally[Symbol.asyncDispose]();
  await bench.stop();
  await clearAway(dir);
});

test('a line that loses every packet, and one of a kilobyte a second: jobs end as they must', async () => {
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
  slow.faults.bytesPerSecond = Infinity;
}, 240_000);

/** A kubeconfig of the administrator that leads over another line. */
async function kubeconfigOver(line: NetworkNamespace): Promise<string> {
  const config = JSON.parse(await readFile(bench.controlPlane.adminKubeconfig, 'utf8')) as {
    clusters: { cluster: object }[];
  };
  const over = { server: `https://${line.address}:${line.port}`, 'tls-server-name': 'localhost' };
  config.clusters.forEach(({ cluster: one }) => Object.assign(one, over));
  const file = join(dir, 'far.kubeconfig');
  await writeFile(file, JSON.stringify(config), { mode: 0o600 });
  return file;
}

test('the line to the API server loses every packet: the leader gives up, and another misses nothing', async () => {
  const apiServer = Number(new URL(bench.controlPlane.server).port);
  await using line = await NetworkNamespace.start(apiServer);
  const waiting = (name: string, kubeconfig: string) =>
    ControllerProcess.start({
      kubeconfig,
      namespace: systemNamespace,
      logFile: join(dir, `${name}.log`),
      startedBy: 'waiting for the lease',
    });
  await using far = await waiting('far', await kubeconfigOver(line));
  const lines = (controller: ControllerProcess, what: string) =>
    controller.log().filter(({ msg }) => msg === what).length;
  const leads = (controller: ControllerProcess, what: string, times = 1) =>
    eventually(
      () => Promise.resolve(lines(controller, 'reconciling')),
      (count) => count >= times,
      what,
      60,
    );
  await cluster.controller.stop();
  await leads(far, 'the one behind the line leads');
  await using near = await waiting('near', bench.controlPlane.adminKubeconfig);

  const on = { hostSelector: { matchLabels: { line: 'lossy' } }, timeoutSeconds: 300 };
  const mounts = [{ name: 'snapshot', source: tally.source }];
  const until = (name: string) =>
    `${Tally.mark(name)}; until [ -e /artifacts/go ]; do sleep 0.1; done; exit 5`;
  await cluster.applyAll({
    'goes-on': { ...on, mounts, command: until('goes-on') },
    'called-off': { ...on, mounts, command: until('called-off') },
  });
  const { status: running } = await cluster.until('goes-on', 'RunnerStarted');
  await cluster.until('called-off', 'RunnerStarted');

  await line.drop();
  const before = far.log().length;
  // All of this happens while the leader hears nothing, and no connection of it is closed.
  await cluster.change('called-off', { cancel: true });
  await cluster.apply('comes', { ...on, mounts, command: `${Tally.mark('comes')}; exit 6` });
  const { incus, project } = bench.host;
  const go = ['exec', '--project', project, running?.instance?.name ?? '', '--', 'touch', '/artifacts/go'];
  await incus.incusOk(go);

  await eventually(
    () => Promise.resolve(far.daemon.running),
    (is) => !is,
    'the leader has given up',
    60,
  );
  expect(far.daemon.exitCode).toBe(1);
  expect(lines(far, 'the lease was lost')).toBe(1);
  await leads(near, 'the other one leads');
  expect((await cluster.finished('goes-on')).status).toMatchObject({ exitCode: 5, attempt: 1 });
  expect((await cluster.finished('comes')).status).toMatchObject({ exitCode: 6, attempt: 1 });
  expect((await cluster.finished('called-off')).status?.phase).toBe('Cancelled');
  for (const name of ['goes-on', 'comes', 'called-off']) expect(tally.of(name), name).toHaveLength(1);
  expect(await cluster.instances()).toEqual([]);
  const complaints = far
    .log()
    .slice(before)
    .filter(({ level }) => level === 'warn' || level === 'error');
  expect(complaints.length, JSON.stringify(complaints)).toBeLessThan(30);

  // Started again, as a cluster does, it waits its turn once it is heard again.
  await line.heal();
  await far.daemon.start();
  await near.stop();
  await leads(far, 'the one that is back leads', 2);
  await cluster.apply('afterwards', { ...on, mounts, command: `${Tally.mark('afterwards')}; exit 8` });
  expect((await cluster.finished('afterwards')).status).toMatchObject({ exitCode: 8, attempt: 1 });
}, 240_000);
