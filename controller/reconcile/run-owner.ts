import type { CiJob } from '../api/cijob.ts';
import { holdUntilAnnotation } from '../api/meta.ts';
import type { InstanceView } from '../incus/inventory.ts';
import { longestHold } from './clean-up.ts';
import type { Patience } from './observed.ts';

/** A process of `cijob run`. Nobody but it looks after its instances, which carry who it is. */
export interface RunOwner {
  /** Where process numbers mean the same: 32 hex digits that stand for a machine, its boot, and a namespace. */
  place: string;
  pid: number;
  /** When the process started, in the kernel's own count: its number may be given again. */
  start: string;
}

/** An installation's identity begins with the name of a namespace, which has no colon. */
const pattern = /^run:([0-9a-f]{32}):([1-9]\d{0,9}):(\d{1,20})$/;

/** The owner as the value of `user.cijob.controller`. */
export function runOwnerId({ place, pid, start }: RunOwner): string {
  return `run:${place}:${pid}:${start}`;
}

/** The owner that a value of `user.cijob.controller` stands for; undefined where it is not a `cijob run`. */
export function parseRunOwner(controllerId = ''): RunOwner | undefined {
  const [, place, pid, start] = pattern.exec(controllerId) ?? [];
  if (place === undefined || pid === undefined || start === undefined) return undefined;
  return { place, pid: Number(pid), start };
}

/** Clocks of two machines differ, and what cleans up may have to try more than once. In milliseconds. */
const margin = 3600_000;

/**
 * When the run that makes an instance now is over at the latest, if it lives. In milliseconds since the epoch.
 * The runner may be launched twice, each time with its whole limit.
 */
export function leaseEnd(
  { spec, metadata }: CiJob,
  now: number,
  { hostGrace, deadlineSlack }: Patience,
): number {
  const asked = Date.parse(metadata.annotations?.[holdUntilAnnotation] ?? '') - now;
  const hold = Number.isNaN(asked)
    ? spec.holdOnFailureSeconds * 1000
    : Math.min(Math.max(0, asked), longestHold);
  const running = 2 * (spec.timeoutSeconds * 1000 + deadlineSlack);
  return now + spec.bootTimeoutSeconds * 1000 + running + hold + 2 * hostGrace + margin;
}

/** What a process can find out about another one. */
export interface Vantage {
  place: string;
  lives(owner: RunOwner): boolean;
}

/**
 * Whether an instance was made by a `cijob run` that is dead. Of one that ran elsewhere nobody can tell, so that its
 * lease (`user.cijob.expires`) must be over. What a cluster's controller made is never abandoned.
 */
export function isAbandoned({ labels }: InstanceView, now: number, from: Vantage): boolean {
  const owner = parseRunOwner(labels['controller']);
  if (!owner) return false;
  if (owner.place === from.place) return !from.lives(owner);
  return now > Date.parse(labels['expires'] ?? '');
}
