import { kinds, wrongWith, type ChaosJob } from './chaos-jobs.ts';
import type { Run } from './chaos-tally.ts';

/** What a storm came to. The names are those of the JSON line that `npm run e2e:chaos` ends with. */
export interface Figures {
  jobs: number;
  controllerKills: number;
  sshCuts: number;
  incusdKills: number;
  apiRestarts: number;
  /** Attempts in which the command ran more than once. */
  ranMoreThanOnce: number;
  /** Jobs that never came to their end, or whose end was told although the command never ran. */
  lost: number;
  wrongOutcome: number;
  instancesLeft: number;
}

export interface Report {
  figures: Figures;
  /** A Markdown table: one row for each kind of job. */
  table: string;
  /** Whatever was wrong, one line each. */
  complaints: string[];
}

export interface Seen extends Omit<
  Figures,
  'jobs' | 'ranMoreThanOnce' | 'lost' | 'wrongOutcome' | 'instancesLeft'
> {
  jobs: readonly ChaosJob[];
  runs: readonly Run[];
  instancesLeft: readonly string[];
}

export function report(seen: Seen): Report {
  const { jobs, runs, instancesLeft, ...happened } = seen;
  const twice = runsTwice(runs);
  const lost = jobs.flatMap((job) => lostBy(job, runs) ?? []);
  const wrong = jobs.flatMap((job) => {
    const why = job.over ? wrongWith(job) : undefined;
    return why === undefined ? [] : [`${job.name}: ${why}; ${job.last?.status?.failure?.message ?? ''}`];
  });
  return {
    figures: {
      jobs: jobs.length,
      ...happened,
      ranMoreThanOnce: twice.length,
      lost: lost.length,
      wrongOutcome: wrong.length,
      instancesLeft: instancesLeft.length,
    },
    table: tableOf(jobs, runs),
    complaints: [
      ...twice.map((instance) => `the command ran more than once in ${instance}`),
      ...lost.map((what) => `lost: ${what}`),
      ...wrong.map((what) => `wrong outcome: ${what}`),
      ...instancesLeft.map((name) => `instance ${name} is left`),
    ],
  };
}

/** Instances in which the command began more than once, by what we heard or by the guest's own count. */
function runsTwice(runs: readonly Run[]): string[] {
  const counts = new Map<string, number>();
  for (const { instance, count } of runs) {
    counts.set(instance, Math.max((counts.get(instance) ?? 0) + 1, count));
  }
  return [...counts].filter(([, count]) => count > 1).map(([instance]) => instance);
}

function lostBy(job: ChaosJob, runs: readonly Run[]): string | undefined {
  const { name, kind, over, last } = job;
  if (!over) return `${name} is not over: ${JSON.stringify(last?.status)}`;
  if (kind === 'cancel' || kind === 'delete') return undefined;
  const instance = last?.status?.instance?.name;
  return runs.some((run) => run.job === name && run.instance === instance)
    ? undefined
    : `${name} ended in ${instance ?? 'no instance'} without having run there`;
}

function tableOf(jobs: readonly ChaosJob[], runs: readonly Run[]): string {
  const rows = kinds.map((kind) => {
    const ofKind = jobs.filter((job) => job.kind === kind);
    const instances = ofKind.map(({ name }) =>
      runs.filter((run) => run.job === name).map((run) => run.instance),
    );
    return [
      kind,
      ofKind.length,
      ofKind.filter((job) => job.over && wrongWith(job) === undefined).length,
      instances.flat().length,
      new Set(instances.flat()).size,
      instances.filter((names) => new Set(names).size > 1).length,
    ];
  });
  const head = ['ends by', 'jobs', 'right outcome', 'runs', 'attempts that ran', 'jobs with a retry'];
  const lines = [head, head.map(() => '---'), ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
