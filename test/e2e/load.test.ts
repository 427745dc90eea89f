import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startBench, type Bench, type BenchHost } from './support/bench.ts';
import { Cluster, eventually, type JobInput } from './support/cluster.ts';

const vias = ['Socket', 'Sudo'] as const;
type Via = (typeof vias)[number];

let bench: Bench;
let cluster: Cluster;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true, hosts: 2 });
  const host = (via: Via) => ({ via, slots: 4, labels: { via } });
  cluster = await Cluster.start(bench, {
    hosts: { 'by-socket': host('Socket'), 'by-sudo': host('Sudo') },
  });
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
});

const on = (via: Via, job: JobInput): JobInput => ({ hostSelector: { matchLabels: { via } }, ...job });
const requests = () => cluster.controller.log().filter((line) => line.msg === 'request');

test.each(vias)(
  'through %s, thirty jobs on a host with four slots never have more than four instances, and all finish',
  async (via) => {
    const host = bench.hosts[vias.indexOf(via)]!;
    const jobs = Array.from({ length: 30 }, (_, index) => ({
      name: `one-of-30-${via.toLowerCase()}-${index + 1}`,
      code: index % 3,
      image: index % 5 === 0 ? 'pikaci/systemd' : 'pikaci/busybox',
    }));
    await using seen = new InstanceCount(host);
    await seen.listening();

    await cluster.applyAll(
      Object.fromEntries(
        jobs.map(({ name, code, image }) => [name, on(via, { command: `sleep 0.5; exit ${code}`, image })]),
      ),
    );
    for (const { name, code } of jobs) {
      const { status } = await cluster.finished(name, 110);
      expect(status, name).toMatchObject({ exitCode: code, attempt: 1 });
    }
    const told = () => Promise.resolve(seen.deleted);
    await eventually(told, (deleted) => deleted >= 30, 'the last deletion is told', 10);
    expect(seen.created).toBe(30);
    expect(seen.most).toBeLessThanOrEqual(4);
    // A controller that ran one after the other would pass otherwise.
    expect(seen.most).toBeGreaterThan(1);
    expect(await cluster.instances(host)).toEqual([]);
  },
);

/** Waits until Incus is asked for nothing any more. */
async function silence(): Promise<void> {
  const all = async () => {
    const before = requests().length;
    await delay(1000);
    return requests().length - before;
  };
  await eventually(all, (more) => more === 0, 'a second without a request', 30);
}

test('after them, a job of 40 s causes no more requests to Incus than one of 1 s', async () => {
  /**
   * The requests to each host for one job there: until it is over, and for its removal. Listings, which are made every
   * few minutes, are no job's.
   */
  const requestsFor = async (seconds: number): Promise<Record<Via, { run: string[]; removal: string[] }>> => {
    const before = requests().length;
    const name = (via: Via) => `takes-${seconds}s-${via.toLowerCase()}`;
    for (const via of vias) await cluster.apply(name(via), on(via, { command: `sleep ${seconds}` }));
    for (const via of vias) expect((await cluster.finished(name(via))).status?.phase).toBe('Succeeded');
    await silence();
    const lines = requests()
      .slice(before)
      .filter(({ path }) => !/^\/1\.0\/(instances|operations)\?recursion=1/.test(String(path)))
      .map(({ host, method, path }) => `${host ?? ''} ${String(method)} ${String(path)}`);
    const to = (host: string) => {
      const all = lines.filter((line) => line.startsWith(host));
      const stop = all.findIndex((line) => line.includes(' PUT '));
      expect(stop, all.join('\n')).not.toBe(-1);
      return { run: all.slice(0, stop), removal: all.slice(stop) };
    };
    return { Socket: to('by-socket'), Sudo: to('by-sudo') };
  };
  const short = await requestsFor(1);
  // incusd closes streams over which nothing was asked for thirty seconds. There are many after so many jobs.
  const long = await requestsFor(40);
  for (const via of vias) {
    const { run, removal } = long[via];
    expect(run.length, run.join('\n')).toBeLessThanOrEqual(short[via].run.length);
    // Image, profile, creation, launch, result and log, at least.
    expect(short[via].run.length, short[via].run.join('\n')).toBeGreaterThan(5);
    // To stop it and to delete it. How often it is looked at meanwhile depends on the order of events.
    expect(removal.length, removal.join('\n')).toBeGreaterThanOrEqual(2);
    expect(removal.length, removal.join('\n')).toBeLessThanOrEqual(8);
  }
});

/** Counts the instances of a project as Incus's own events tell of them. */
class InstanceCount implements AsyncDisposable {
  created = 0;
  deleted = 0;
  most = 0;
  readonly #monitor: ChildProcess;
  readonly #warmUp: () => Promise<unknown>;
  #heard = false;

  constructor({ incus, project }: BenchHost) {
    const args = ['monitor', '--project', project, '--format', 'json'];
    this.#monitor = spawn('incus', args, {
      env: { ...process.env, ...incus.env },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    this.#warmUp = () => incus.incus(['list', '--project', project]);
    createInterface({ input: this.#monitor.stdout! }).on('line', (line) => {
      // The client puts an empty line after each event.
      if (line === '') return;
      this.#heard = true;
      const { type, metadata } = JSON.parse(line) as { type: string; metadata: { action?: string } };
      if (type !== 'lifecycle') return;
      if (metadata.action === 'instance-created') this.created += 1;
      if (metadata.action === 'instance-deleted') this.deleted += 1;
      this.most = Math.max(this.most, this.created - this.deleted);
    });
  }

  /** Waits until the stream is open: any request to Incus shows in it, as a line of its log. */
  async listening(): Promise<void> {
    await eventually(this.#warmUp, () => this.#heard, 'incus monitor tells something', 20);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#monitor.kill('SIGKILL');
    return Promise.resolve();
  }
}
