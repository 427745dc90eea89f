import type { CiJobStatus } from '../api/cijob-status.ts';

/** Lines of a log that are shown again. */
const lines = 20;

/** The end of the log of each job that failed, for people who would have to look for it among the lines of others. */
export function failedEnds(jobs: Iterable<readonly [key: string, status: CiJobStatus]>): string[] {
  return [...jobs].flatMap(([key, { failure }]) => {
    if (!failure?.excerpt) return [];
    const end = failure.excerpt.replace(/\n$/, '').split('\n').slice(-lines);
    return [
      `${key} failed, ${failure.class}: ${failure.reason}; its log ends with:`,
      ...end.map((line) => `  ${line}`),
    ];
  });
}
