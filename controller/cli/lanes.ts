import { InvalidArgumentError } from 'commander';
import type { CiJob } from '../api/cijob.ts';
import { laneLabel } from '../api/meta.ts';
import { otherLane } from '../telemetry/metrics.ts';

/** Each lane is some fifty series. */
const mostLanes = 50;

/** Takes one more `--lane NAME` of the command line. @throws InvalidArgumentError when it could be no label's value. */
export function addLane(name: string, lanes: readonly string[] = []): string[] {
  if (!/^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/.test(name)) {
    throw new InvalidArgumentError(`It must be a value that a label can have.`);
  }
  const all = [...new Set([...lanes, name])];
  if (all.length > mostLanes) throw new InvalidArgumentError(`There can be at most ${mostLanes} lanes.`);
  return all;
}

/**
 * The lane that a job counts for in the metrics: that of its label, if the operator has named it. Whoever makes jobs
 * can label them as they please, and must not be able to make a series of each.
 */
export function laneOf({ metadata }: CiJob, lanes: ReadonlySet<string>): string {
  const lane = metadata.labels?.[laneLabel];
  return lane !== undefined && lanes.has(lane) ? lane : otherLane;
}
