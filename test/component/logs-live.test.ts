import { setTimeout as delay } from 'node:timers/promises';
import PQueue from 'p-queue';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../controller/clock.ts';
import { LiveLogs, type LogSource, type LogWay } from '../../controller/hosts/live-logs.ts';
import { IncusClient } from '../../controller/incus/client.ts';
import { HttpPipe } from '../../controller/incus/http.ts';
import { LogStore } from '../../controller/logs/log-store.ts';
import { logPath } from '../support/incus-sim/guest-script.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';

describe('a log that is kept while a guest writes it', () => {
  let directory: string;
  let sim: IncusSim;
  let store: LogStore;
  let pipes: HttpPipe[];
  let turns: PQueue;
  const log: LogSource = { instance: 'guest', namespace: 'ci', name: 'job', uid: 'uid-1', attempt: 1 };

  beforeEach(async () => {
    directory = await makeTempDir('live');
    sim = new IncusSim();
    pipes = [];
    turns = new PQueue();
    store = await openStore();
    const fingerprint = sim.store.addImage('image');
    await connect().start({
      method: 'POST',
      path: '/1.0/instances',
      body: { name: 'guest', type: 'container', source: { type: 'image', fingerprint }, start: true },
    });
    await until(() => sim.instance('guest')?.power === 'Running');
  });
  afterEach(async () => {
    for (const pipe of pipes) pipe.close();
    sim.close();
    await clearAway(directory);
  });

  const openStore = (maxBytes = 10_000) =>
    LogStore.open({
      directory,
      maxBytes,
      maxArchiveBytes: 0,
      totalBytes: 100_000,
      clock: systemClock,
      isLive: () => true,
      onError: () => undefined,
    });
  const sinkOf = (kept: LogStore) =>
    new LiveLogs({ size: (one) => kept.size(one), write: (...args) => kept.write(...args) });

  function connect(onRequest?: (method: string, path: string) => void): IncusClient {
    const pipe = new HttpPipe(() => Promise.resolve(sim.connect()), { requests: 8, reads: 8 });
    pipes.push(pipe);
    return new IncusClient(pipe, 'default', onRequest);
  }

  const print = (text: string) => sim.instance('guest')?.guest.files.append(logPath, text);
  const over = (client: IncusClient): LogWay => ({ host: 'host', client, project: 'default', turns });
  const kept = async () => (store.size(log) ? (await store.read(log, 0, 100_000)).toString() : '');

  async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!(await holds())) {
      if (performance.now() > deadline) throw new Error(`not within 10 s; kept: ${await kept()}`);
      await delay(5);
    }
  }

  it('has lines while they are written, and the rest in the end', async () => {
    const logs = sinkOf(store);
    const client = connect();
    logs.follow(over(client), log);
    print('one\n');
    await until(async () => (await kept()) === 'one\n');
    print('two\n');
    await until(async () => (await kept()) === 'one\ntwo\n');
    print('three\n');
    await logs.finish('host', client, log);
    expect(await kept()).toBe('one\ntwo\nthree\n');
  });

  it('tells of each request without the secret that opens the stream of the log', async () => {
    const told: string[] = [];
    const logs = sinkOf(store);
    logs.follow(over(connect((method, path) => told.push(`${method} ${path}`))), log);
    print('one\n');
    await until(async () => (await kept()) === 'one\n');
    expect(told.filter((one) => /^GET \/1\.0\/operations\/[^/?]+\/websocket$/.test(one))).not.toEqual([]);
    expect(told.join('\n')).not.toContain('secret');
  });

  it('goes on over a new connection to the host', async () => {
    const logs = sinkOf(store);
    logs.follow(over(connect()), log);
    print('before\n');
    await until(async () => (await kept()) === 'before\n');
    sim.cutConnections();
    print('meanwhile\n');
    const again = connect();
    logs.resume(over(again));
    await until(async () => (await kept()) === 'before\nmeanwhile\n');
    print('after\n');
    await until(async () => (await kept()) === 'before\nmeanwhile\nafter\n');
  });

  it('goes on in another process from the bytes that are there', async () => {
    sinkOf(store).follow(over(connect()), log);
    print('before\n');
    await until(async () => (await kept()) === 'before\n');
    // Killed: nothing is told, nothing is closed in order.
    for (const pipe of pipes) pipe.close();
    sim.cutConnections();
    print('meanwhile\n');
    store = await openStore();
    const client = connect();
    const logs = sinkOf(store);
    logs.follow(over(client), log);
    print('after\n');
    await logs.finish('host', client, log);
    expect(await kept()).toBe('before\nmeanwhile\nafter\n');
  });

  it('shows nothing twice when two processes both think they lead', async () => {
    const other = await openStore();
    const clients = [connect(), connect()] as const;
    const both = [sinkOf(store), sinkOf(other)] as const;
    both.forEach((logs, index) => logs.follow(over(clients[index] ?? clients[0]), log));
    for (let line = 1; line <= 20; line += 1) {
      print(`line ${line}\n`);
      await delay(1);
    }
    await Promise.all(both.map((logs, index) => logs.finish('host', clients[index] ?? clients[0], log)));
    const whole = Array.from({ length: 20 }, (_, index) => `line ${index + 1}\n`).join('');
    expect(await kept()).toBe(whole);
  });

  it('takes no more of a log than the store keeps, and lets the job go on', async () => {
    store = await openStore(10);
    const logs = sinkOf(store);
    const client = connect();
    logs.follow(over(client), log);
    print('0123456789abcdef');
    await until(async () => (await kept()) === '0123456789');
    sim.instance('guest')?.guest.files.set(logPath, { kind: 'zeros', size: 2 ** 40 });
    await logs.finish('host', client, log);
    expect(await kept()).toBe('0123456789');
    expect(store.isTruncated(log)).toBe(true);
  });

  it('does without a log that is no file', async () => {
    const logs = sinkOf(store);
    sim.instance('guest')?.guest.files.set(logPath, { kind: 'directory' });
    await logs.finish('host', connect(), log);
    expect(store.size(log)).toBeUndefined();
  });

  it('goes on where it ended when the rest could not be read at once', async () => {
    const logs = sinkOf(store);
    print('text\n');
    const client = connect();
    sim.kill();
    await expect(logs.finish('host', client, log)).rejects.toThrow();
    await sim.restart();
    await logs.finish('host', connect(), log);
    expect(await kept()).toBe('text\n');
  });
});
