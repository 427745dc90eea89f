import { table } from '../demo/table.ts';

/** What was measured, one value a round. Times are in milliseconds. */
export interface Samples {
  floor: number[];
  standalone: number[];
  cluster: number[];
  /** From the runner's exit, as Incus dates it, to the terminal status at a watcher. */
  exitToTerminal: number[];
  apiWrites: number[];
  incusRequests: number[];
  /** Whole runs of the program `cijob run`. */
  wholeProgram: number[];
}

/** The medians, for machines. */
export interface Summary {
  floorMs: number;
  standaloneMs: number;
  clusterMs: number;
  ratioStandalone: number;
  ratioCluster: number;
  exitToTerminalMs: number;
  apiWritesPerJob: number;
  incusRequestsPerJob: number;
}

export function summary(samples: Samples): Summary {
  const floorMs = round(median(samples.floor), 1);
  const standaloneMs = round(median(samples.standalone), 1);
  const clusterMs = round(median(samples.cluster), 1);
  return {
    floorMs,
    standaloneMs,
    clusterMs,
    ratioStandalone: round(standaloneMs / floorMs, 3),
    ratioCluster: round(clusterMs / floorMs, 3),
    exitToTerminalMs: round(median(samples.exitToTerminal), 1),
    apiWritesPerJob: median(samples.apiWrites),
    incusRequestsPerJob: median(samples.incusRequests),
  };
}

/** The same for people. */
export function report(samples: Samples): string[] {
  const { ratioStandalone, ratioCluster, exitToTerminalMs, apiWritesPerJob, incusRequestsPerJob } =
    summary(samples);
  const row = (title: string, values: number[], ratio: number) => [
    title,
    `${median(values).toFixed(0)} ms`,
    `${Math.min(...values).toFixed(0)} ms`,
    `${Math.max(...values).toFixed(0)} ms`,
    ratio.toFixed(2),
  ];
  return [
    ...table([
      ['one trivial job', 'MEDIAN', 'LEAST', 'MOST', 'TO FLOOR'],
      row('floor: bare requests, local socket', samples.floor, 1),
      row('standalone: cijob run over SSH, connected', samples.standalone, ratioStandalone),
      row('cluster: create to Complete, over SSH', samples.cluster, ratioCluster),
    ]),
    '',
    `the runner's exit to a terminal status that a watcher sees: ${exitToTerminalMs.toFixed(0)} ms`,
    `writes to the API server, per job: ${apiWritesPerJob}`,
    `requests to Incus, per job, clean-up included: ${incusRequestsPerJob}`,
    `the program \`cijob run\` from its start to its end, connecting and clean-up included: ${median(samples.wholeProgram).toFixed(0)} ms`,
  ];
}

/** The middle value; of an even number, the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const [low, high] = [sorted[Math.ceil(middle) - 1] ?? NaN, sorted[Math.floor(middle)] ?? NaN];
  return (low + high) / 2;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
