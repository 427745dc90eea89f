import type { CiJob } from '../../controller/api/cijob.ts';
import type { JobInput } from './support/cluster.ts';
import { Tally } from './chaos-tally.ts';

/** The ways in which the jobs of the storm end. */
export const kinds = ['success', 'failure', 'timeout', 'cancel', 'delete'] as const;
export type Kind = (typeof kinds)[number];

/** A job of the storm, and what it should come to. */
export interface ChaosJob {
  name: string;
  kind: Kind;
  /** Exit code of the command, where it gets to end by itself. */
  code: number;
  /** When it was created, and when it was called off, on the process's own clock. */
  createdAt?: number;
  calledOffAt?: number;
  /** Whether it is called off while its command runs, or at any moment, from its creation on. */
  callOffRunning: boolean;
  /** How long after that, in milliseconds. */
  callOffAfter: number;
  /** As last seen. */
  last?: CiJob | undefined;
  over: boolean;
}

/** The kinds, in the order and the proportion in which they come. */
const mix: readonly Kind[] = ['success', 'failure', 'success', 'cancel', 'timeout', 'success', 'delete'];

export function chaosJob(index: number): ChaosJob {
  const kind = mix[index % mix.length] ?? 'success';
  return {
    name: `${kind}-${index}`,
    kind,
    code: kind === 'failure' ? 1 + (index % 100) : 0,
    callOffRunning: index % (2 * mix.length) < mix.length,
    callOffAfter: Math.random() * 5_000,
    over: false,
  };
}

export function inputOf({ name, kind, code }: ChaosJob, source: string): JobInput {
  const naps: Record<Kind, string> = {
    success: `sleep ${(Math.random() * 5).toFixed(1)}`,
    failure: `sleep ${(Math.random() * 5).toFixed(1)}`,
    timeout: 'sleep 600',
    cancel: 'sleep 600',
    delete: 'sleep 600',
  };
  return {
    command: `${Tally.mark(name)}; ${naps[kind]}; exit ${code}`,
    timeoutSeconds: kind === 'timeout' ? 3 : 900,
    // Attempts are counted, not limited, here: a retry is right after an infrastructure failure, and only then.
    infraRetryLimit: 10,
    instance: { memory: '128MiB' },
    mounts: [{ name: 'snapshot', source }],
  };
}

/** What is wrong with how a job ended; undefined if it is as it should be. */
export function wrongWith({ kind, code, last }: ChaosJob): string | undefined {
  // A deleted job that is still there is lost, which is counted elsewhere.
  if (kind === 'delete') return undefined;
  const { status } = last ?? {};
  const seen = [status?.phase, status?.failure?.class, status?.failure?.reason, status?.exitCode].join(' ');
  const wanted: Record<Exclude<Kind, 'delete'>, string> = {
    success: 'Succeeded   0',
    failure: `Failed Test NonZeroExitCode ${code}`,
    timeout: 'Failed Timeout DeadlineExceeded 124',
    cancel: 'Cancelled Cancelled Cancelled ',
  };
  return seen === wanted[kind] ? undefined : `${seen}; wanted ${wanted[kind]}`;
}

/** Whether nothing will happen to a job any more: it is gone, or finished and let go of. */
export function isOver({ kind }: ChaosJob, job: CiJob | undefined): boolean {
  if (!job) return true;
  return (
    kind !== 'delete' &&
    job.status?.completionTime !== undefined &&
    (job.metadata.finalizers ?? []).length === 0
  );
}
