import { findCondition } from '../api/conditions.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import type { Command } from '../incus/commands.ts';

/** A stretch of time, in milliseconds since the epoch. */
export interface Span {
  from: number;
  to: number;
}

/** What is known of an attempt under way: when it was not waiting for us. */
interface Known {
  /** Commands for Incus, and times in which its host was out of reach. */
  others: Span[];
  /** When the runner was first launched. */
  launchedAt: number | undefined;
}

/** Attempts whose end nobody tells, as their CiJob was removed by force, must not fill the memory. */
const mostAttempts = 10_000;

/**
 * Tells how long the controller itself kept jobs waiting: the time from the admission of the last attempt to its
 * outcome in which it waited for nobody else. Others are Incus (a command under way, its turn on the host and the
 * Secrets it needs included), a host out of reach, a guest that boots, and the job's own command from its launch on.
 * Only attempts that were admitted by this process are known well enough.
 */
export class Overhead {
  /** By the name of the instance, which no other attempt has. */
  readonly #attempts = new Map<string, Known>();

  /** A command has come back. @param endedAt Milliseconds since the epoch. */
  command({ verb, instance }: Command, endedAt: number, milliseconds: number): void {
    const known = this.#attempts.get(instance);
    if (!known) return;
    known.others.push({ from: endedAt - milliseconds, to: endedAt });
    if (verb === 'launch') known.launchedAt ??= endedAt - milliseconds;
  }

  /** A status was computed. Returns the overhead in seconds, if this is the outcome of an attempt that is known. */
  status(before: CiJobStatus | undefined, after: CiJobStatus): number | undefined {
    const lost = before?.instance?.name;
    if (lost !== undefined && lost !== after.instance?.name) this.#attempts.delete(lost);
    const name = after.instance?.name;
    if (name === undefined) return undefined;
    if (name !== lost) this.#begin(name);
    const known = this.#attempts.get(name);
    if (!known) return undefined;
    const away = outOfReach(before, after);
    if (away) known.others.push(away);
    if (after.completionTime === undefined) return undefined;
    this.#attempts.delete(name);
    return overhead(after, known);
  }

  #begin(name: string): void {
    const [oldest] = this.#attempts.keys();
    if (oldest !== undefined && this.#attempts.size >= mostAttempts) this.#attempts.delete(oldest);
    this.#attempts.set(name, { others: [], launchedAt: undefined });
  }
}

function overhead({ timings = [], completionTime = '' }: CiJobStatus, known: Known): number | undefined {
  const admitted = timings.find(({ phase }) => phase === 'Provisioning');
  if (!admitted) return undefined;
  const whole = { from: Date.parse(admitted.startedAt), to: Date.parse(completionTime) };
  const guest = timings.flatMap(({ phase, startedAt, finishedAt = completionTime }) => {
    const span = { from: Date.parse(startedAt), to: Date.parse(finishedAt) };
    if (phase === 'Booting') return [span];
    // The phase begins with a write of the status that must be durable before the launch: that is ours.
    return phase === 'Running' ? [{ ...span, from: Math.max(span.from, known.launchedAt ?? span.to) }] : [];
  });
  return uncovered(whole, [...known.others, ...guest]) / 1000;
}

/** The time in which the job's host was out of sight, when that is just over. */
function outOfReach(before: CiJobStatus | undefined, after: CiJobStatus): Span | undefined {
  const was = findCondition(before?.conditions, 'Ready');
  const is = findCondition(after.conditions, 'Ready');
  if (was?.status !== 'Unknown' || !is || is.status === 'Unknown') return undefined;
  return { from: Date.parse(was.lastTransitionTime), to: Date.parse(is.lastTransitionTime) };
}

/** Milliseconds of the whole that none of the spans covers, however they overlap. */
export function uncovered(whole: Span, spans: readonly Span[]): number {
  let free = 0;
  let at = whole.from;
  for (const { from, to } of [...spans].sort((a, b) => a.from - b.from)) {
    free += Math.max(0, Math.min(from, whole.to) - at);
    at = Math.max(at, to);
  }
  return free + Math.max(0, whole.to - at);
}
