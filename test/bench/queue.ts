import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { table } from '../demo/table.ts';
import type { Demand } from '../../controller/hosts/admission.ts';
import { Scheduler, type Candidate } from '../../controller/hosts/scheduler.ts';
import { systemClock } from '../../controller/clock.ts';
import { SimBench } from '../support/sim-bench.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { median } from './report.ts';

/** What a long queue costs, in CPU time of this process. */
export interface QueueSummary {
  /** A slot turns over, a job comes, and a job asks for its place: in microseconds, with 1,000 jobs waiting. */
  stepUs1000: number;
  stepUs10000: number;
  ratio: number;
  /** Of the whole controller and a simulated host, while this many jobs wait and none runs to its end. */
  waiting: number;
  cpuMsPerMinute: number;
}

const steps = 2_000;
const rounds = 5;
const waiting = 4_000;

/** Measures it; takes about three minutes. */
export async function measureQueue(say: (line: string) => void): Promise<QueueSummary> {
  const samples: [few: number[], many: number[]] = [[], []];
  for (let round = 0; round <= rounds; round += 1) {
    const [few, many] = [microsecondsAStep(1_000), microsecondsAStep(10_000)];
    // The first warms up.
    if (round === 0) continue;
    samples[0].push(few);
    samples[1].push(many);
    say(
      `round ${round} of ${rounds}: ${few.toFixed(0)} us a step with 1,000 jobs, ${many.toFixed(0)} with 10,000`,
    );
  }
  const [stepUs1000, stepUs10000] = [median(samples[0]), median(samples[1])];
  say(`two minutes of the whole controller with ${waiting} jobs that wait`);
  return {
    stepUs1000: Number(stepUs1000.toFixed(1)),
    stepUs10000: Number(stepUs10000.toFixed(1)),
    ratio: Number((stepUs10000 / stepUs1000).toFixed(2)),
    waiting,
    cpuMsPerMinute: Math.round(await cpuOfWaiting()),
  };
}

export function reportQueue(summary: QueueSummary): string[] {
  const { stepUs1000, stepUs10000, ratio, cpuMsPerMinute } = summary;
  return [
    ...table([
      ['one step of the queue', 'CPU TIME', 'TO 1,000'],
      ['1,000 jobs wait', `${stepUs1000.toFixed(0)} us`, '1.00'],
      ['10,000 jobs wait', `${stepUs10000.toFixed(0)} us`, ratio.toFixed(2)],
    ]),
    '',
    `the whole controller while ${summary.waiting} jobs wait: ${cpuMsPerMinute} ms of CPU time a minute`,
  ];
}

const hosts: readonly Candidate[] = Array.from({ length: 10 }, (_, index) => ({
  name: `host-${index}`,
  labels: {},
  up: true,
  unschedulable: undefined,
  instanceTypes: undefined,
  namespaceLabels: undefined,
  capacity: { instances: 8, cpu: Infinity, memoryBytes: 64 * 2 ** 30 },
  largest: { cpu: 64, memoryBytes: 64 * 2 ** 30, rootDiskBytes: Infinity },
  instances: [],
}));

/** Jobs of ten namespaces, of ten priorities, that ask for three sizes. */
function demandOf(index: number): Demand {
  const namespace = `team-${index % 10}`;
  return {
    key: `${namespace}/job-${index}`,
    namespace,
    namespaceLabels: {},
    hostLabels: {},
    type: 'Container',
    cpu: 1 + (index % 3),
    memoryBytes: (1 + (index % 3)) * 2 ** 30,
    rootDiskBytes: 2 ** 30,
    priority: (index * 7) % 10,
    avoid: [],
    createdAt: index,
  };
}

/** What it takes that a slot turns over while so many jobs wait. */
function microsecondsAStep(length: number): number {
  const running: string[] = [];
  const take = (key: string) => {
    const demand = demandOf(Number(key.split('-').at(-1)));
    scheduler.occupy(key, key, { host: hostOf(demand), ...demand });
    running.push(key);
  };
  const hostOf = (demand: Demand) => {
    const admission = scheduler.admit(demand, demand.key);
    if (admission.kind !== 'admitted') throw new Error(`${demand.key} was woken, but has no slot`);
    return admission.host;
  };
  const scheduler = new Scheduler({
    clock: systemClock,
    hosts: () => hosts,
    wake: take,
    onRefusal: () => undefined,
  });
  let last = 0;
  for (; scheduler.waitingKeys().length < length; last += 1)
    scheduler.admit(demandOf(last), demandOf(last).key);
  const before = process.cpuUsage();
  for (let step = 0; step < steps; step += 1) {
    scheduler.release(running.shift() ?? '');
    scheduler.admit(demandOf(last), demandOf(last).key);
    scheduler.admit(demandOf(last), demandOf(last).key);
    last += 1;
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / steps;
}

/** CPU time of a minute, in milliseconds, in which jobs wait and nothing else happens. */
async function cpuOfWaiting(): Promise<number> {
  const directory = await makeTempDir('queue');
  const bench = await SimBench.start(join(directory, 'incus.sock'), { job: { runMs: 3_600_000 } }, 10);
  try {
    for (let index = 0; index < waiting; index += 1)
      bench.create(`job-${index}`, { namespace: `team-${index % 10}` });
    // Every job is looked at once and told its place, and those of the first hundred for the second time.
    await pause(90_000);
    const before = process.cpuUsage();
    await pause(60_000);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1_000;
  } finally {
    await bench.close();
    await rm(directory, { recursive: true });
  }
}
