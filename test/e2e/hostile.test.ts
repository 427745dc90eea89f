import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import type { CiJobStatus } from '../../controller/api/cijob-status.ts';
import { Tally } from './chaos-tally.ts';
import { hostiles } from './hostile-guests.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster, type JobInput } from './support/cluster.ts';

/*
 * Guests that mean ill, on real Incus, beside some that do not. All run at once, six at a time; the tests below look
 * at how each ended.
 */

const neighbours = Array.from({ length: 6 }, (_, index) => `neighbour-${index}`);
const mebibyte = 1024 * 1024;

let bench: Bench;
let cluster: Cluster;
let tally: Tally;
let memory: Memory;
beforeAll(async () => {
  // An Incus of its own: what a guest may do to its server it shall not do to other tests.
  bench = await startBench({ controlPlane: true, ownIncusd: true });
  cluster = await Cluster.start(bench, { slots: 6 });
  tally = await Tally.start(bench.host);
  memory = new Memory(cluster.controller.daemon.pid);
  const common = { infraRetryLimit: 0, mounts: [{ name: 'snapshot', source: tally.source }] };
  const ill = Object.entries(hostiles).map(([name, [job]]): [string, JobInput] => [
    name,
    { ...common, ...job, command: `${Tally.mark(name)}; ${job.command}` },
  ]);
  const good = neighbours.map((name): [string, JobInput] => [
    name,
    { ...common, command: `${Tally.mark(name)}; sleep 1` },
  ]);
  // A neighbour after every third.
  const jobs = ill.flatMap((one, index) => (index % 3 === 0 ? [one, ...good.splice(0, 1)] : [one]));
  await cluster.applyAll(Object.fromEntries([...jobs, ...good]));
});
afterAll(async () => {
  memory.stop();
  await tally[Symbol.asyncDispose]();
  await cluster.stop();
  await bench.stop();
});

describe('a guest whose', () => {
  test.for(Object.entries(hostiles))('%s ends as it must', async ([name, [, wanted]]) => {
    onTestFailed(() => console.log(bench.host.incusd?.lastLines(50)));
    const { status } = await cluster.finished(name, 110);
    const seen = JSON.stringify(status);
    expect(status?.phase, seen).toBe(wanted.phase);
    if (wanted.class) expect(status?.failure?.class, seen).toBe(wanted.class);
    if (wanted.exitCode !== undefined) expect(status?.exitCode, seen).toBe(wanted.exitCode);
    if (wanted.reasons) expect(wanted.reasons, seen).toContain(status?.failure?.reason);
    expect(runs(name), 'how often its command ran').toBe(1);
  });

  test('log is of two gigabytes has the end of it, and is told that it was cut', async () => {
    const log = await logOf('log-two-gigabytes');
    expect(log).toMatchObject({ truncated: true });
    expect(log?.bytes).toBeLessThan(65 * mebibyte);
  });

  test('log is five gigabytes of nothing is told its size, with an excerpt of 4 KiB', async () => {
    const { status } = await cluster.finished('log-five-sparse-gigabytes', 110);
    expect(status?.log?.bytes).toBeGreaterThanOrEqual(5 * 1024 * mebibyte);
    expect(Buffer.byteLength(status?.failure?.excerpt ?? '')).toBeLessThanOrEqual(4096);
  });
});

test('the others do not notice', async () => {
  for (const name of neighbours) {
    const { status } = await cluster.finished(name, 110);
    expect(status, JSON.stringify(status)).toMatchObject({ phase: 'Succeeded', exitCode: 0, attempt: 1 });
    expect(runs(name)).toBe(1);
  }
});

test('the controller neither dies nor grows, and nothing is left on the host', async () => {
  for (const name of Object.keys(hostiles)) await cluster.finished(name, 110);
  expect(cluster.controller.daemon.running).toBe(true);
  expect(memory.growth()).toBeLessThan(100 * mebibyte);
  expect(await cluster.instances()).toEqual([]);
  expect(cluster.controller.log().filter(({ level }) => level === 'error')).toEqual([]);
});

function runs(name: string): number {
  return tally.of(name).length;
}

async function logOf(name: string): Promise<CiJobStatus['log']> {
  return (await cluster.finished(name, 110)).status?.log;
}

/** Resident memory of a process, looked at five times a second. */
class Memory {
  #first = 0;
  #most = 0;
  readonly #pid: number;
  readonly #timer: NodeJS.Timeout;

  constructor(pid: number) {
    this.#pid = pid;
    this.#timer = setInterval(() => void this.#look(), 200);
  }

  /** By how much it ever was larger than at first, in bytes. */
  growth(): number {
    if (this.#first === 0) throw new Error('its memory was never seen');
    return this.#most - this.#first;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const status = await readFile(`/proc/${this.#pid}/status`, 'utf8').catch(() => '');
    const kibibytes = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    if (kibibytes === 0) return;
    if (this.#first === 0) this.#first = kibibytes * 1024;
    this.#most = Math.max(this.#most, kibibytes * 1024);
  }
}
