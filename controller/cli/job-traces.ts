import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import { traceparentAnnotation } from '../api/meta.ts';
import type { CommandEnd, StatusChange } from '../reconcile/ports.ts';
import { parseTraceparent, spanIdOf, traceIdOf } from '../telemetry/trace-ids.ts';
import type { EndedSpan, Trace, Traces } from '../telemetry/traces.ts';

/** Fields of a log line about a job, as OpenTelemetry names them outside of its own log format. */
export interface TraceFields {
  trace_id: string;
  span_id?: string;
}

export interface JobTracesOptions {
  traces: Traces;
  /** Address of an IncusHost's machine; undefined where it is this one, or not known. */
  addressOf: (host: string) => string | undefined;
  /** Of so many jobs it is remembered what has been told; of the others it may be told again. */
  maxJobs?: number;
}

/** What is remembered of one job. */
interface Told {
  trace: Trace;
  /** The newest status that was computed. */
  status: CiJobStatus;
  /** Ids of the spans that were told in this process. */
  spans: Set<string>;
  /** Number of the next command. */
  commands: number;
}

type Timing = NonNullable<CiJobStatus['timings']>[number];

/**
 * Tells each job as a trace: a root span for its life, a span for each phase below it, and one for each command to
 * Incus below its phase. What a stored status tells is told at least once: a controller that takes over tells it again,
 * with the same ids.
 */
export class JobTraces {
  readonly #options: JobTracesOptions;
  readonly #maxJobs: number;
  /** By uid, least recently used first. */
  readonly #jobs = new Map<string, Told>();

  constructor(options: JobTracesOptions) {
    this.#options = options;
    this.#maxJobs = options.maxJobs ?? 4096;
  }

  /** What a log line about the job should carry. */
  fields(job: CiJob): TraceFields {
    const { trace, status } = this.#told(job);
    const open = openPhase(job, status);
    return { trace_id: trace.traceId, ...(open === undefined ? {} : { span_id: open }) };
  }

  /** Id of the job's trace, if it is one that is sent: what an exemplar refers to must be found. */
  exemplar(job: CiJob): string | undefined {
    const { trace } = this.#told(job);
    return trace.sampled ? trace.traceId : undefined;
  }

  /** A status was computed; see `Observer.status`. */
  status({ job, before, after, stored }: StatusChange): void {
    const told = this.#told(job);
    told.status = after;
    if (stored) this.#tell(job, told, before, after);
  }

  /** A command was carried out, or not; see `Observer.command`. Returns what its log line should carry. */
  command({ job, host, command, outcome, milliseconds }: CommandEnd, now: number): TraceFields {
    const told = this.#told(job);
    // It was over before this process saw it: whoever wrote the outcome may not have lived to tell of it.
    if (told.status.completionTime !== undefined) this.#tell(job, told, undefined, told.status);
    const { uid } = job.metadata;
    const { status } = told;
    const start = now - milliseconds;
    const id = spanIdOf(uid, 'command', command.instance, command.verb, start, told.commands);
    told.commands += 1;
    const bad = outcome.kind === 'refused' || outcome.kind === 'failed' || outcome.kind === 'unknown';
    const error = outcome.kind === 'refused' ? outcome.reason : outcome.kind;
    const address = this.#options.addressOf(host);
    this.#options.traces.tell(told.trace, {
      id,
      parentId: phaseAt(job, status, start) ?? rootOf(uid),
      name: `incus ${command.verb}`,
      client: true,
      start,
      end: now,
      attributes: {
        'cijob.host': host,
        'cijob.instance': command.instance,
        'cijob.attempt': status.attempt ?? 1,
        'cijob.incus.verb': command.verb,
        'cijob.incus.outcome': outcome.kind,
        ...(address === undefined ? {} : { 'server.address': address }),
        ...(bad ? { 'error.type': error } : {}),
      },
      ...(bad ? { error } : {}),
    });
    return { trace_id: told.trace.traceId, span_id: id };
  }

  /** Tells what a stored status has that was not told yet. */
  #tell(job: CiJob, told: Told, before: CiJobStatus | undefined, after: CiJobStatus): void {
    const once = (span: EndedSpan) => {
      if (told.spans.has(span.id)) return;
      told.spans.add(span.id);
      this.#options.traces.tell(told.trace, span);
    };
    const lost = after.attempts?.at(-1);
    if (lost && before && (before.attempt ?? 1) === lost.attempt) {
      phaseSpans(job, closed(before, lost.finishedAt), lost.reason).forEach(once);
    }
    phaseSpans(job, after, undefined).forEach(once);
    if (after.completionTime !== undefined) once(rootSpan(job, after, after.completionTime));
  }

  #told(job: CiJob): Told {
    const { uid, annotations } = job.metadata;
    const known = this.#jobs.get(uid);
    if (known) {
      this.#jobs.delete(uid);
      this.#jobs.set(uid, known);
      return known;
    }
    const parent = parseTraceparent(annotations?.[traceparentAnnotation]);
    const told: Told = {
      trace: this.#options.traces.trace(parent ?? traceIdOf(uid)),
      status: job.status ?? {},
      spans: new Set(),
      commands: 0,
    };
    this.#jobs.set(uid, told);
    for (const oldest of this.#jobs.keys()) {
      if (this.#jobs.size <= this.#maxJobs) break;
      this.#jobs.delete(oldest);
    }
    return told;
  }
}

function rootOf(uid: string): string {
  return spanIdOf(uid, 'job');
}

/**
 * Id of a phase's span: the how many-eth of that phase it is in its attempt. Its place among all phases would not do, as
 * a phase that passed unseen while there was no controller is missing in the status.
 */
function phaseId(job: CiJob, { attempt = 1, timings = [] }: CiJobStatus, timing: Timing): string {
  const same = timings.filter(({ phase }) => phase === timing.phase);
  return spanIdOf(job.metadata.uid, 'phase', attempt, timing.phase, same.indexOf(timing));
}

function openPhase(job: CiJob, status: CiJobStatus): string | undefined {
  const open = status.timings?.findLast(({ finishedAt }) => finishedAt === undefined);
  return open && phaseId(job, status, open);
}

/** The phase that a moment falls into. */
function phaseAt(job: CiJob, status: CiJobStatus, time: number): string | undefined {
  const timing = status.timings?.findLast(
    ({ startedAt, finishedAt }) =>
      Date.parse(startedAt) <= time && (finishedAt === undefined || time < Date.parse(finishedAt)),
  );
  return timing && phaseId(job, status, timing);
}

function closed(status: CiJobStatus, time: string): CiJobStatus {
  const timings = status.timings?.map((timing) => ({ ...timing, finishedAt: timing.finishedAt ?? time }));
  return { ...status, ...(timings ? { timings } : {}) };
}

/** @param failure Why the attempt ended, if it has: its last phase is where that happened. */
function phaseSpans(job: CiJob, status: CiJobStatus, failure: string | undefined): EndedSpan[] {
  const { timings = [], host, attempt = 1 } = status;
  const reason = failure ?? status.failure?.reason;
  return timings.flatMap((timing, index) => {
    if (timing.finishedAt === undefined) return [];
    const error = index === timings.length - 1 ? reason : undefined;
    return {
      id: phaseId(job, status, timing),
      parentId: rootOf(job.metadata.uid),
      name: timing.phase,
      start: Date.parse(timing.startedAt),
      end: Date.parse(timing.finishedAt),
      attributes: {
        'cijob.attempt': attempt,
        ...(host === undefined || timing.phase === 'Pending' ? {} : { 'cijob.host': host }),
        ...(error === undefined ? {} : { 'error.type': error }),
      },
      ...(error === undefined ? {} : { error }),
    };
  });
}

/** Never the failure's message or excerpt: a guest may have written them. */
function rootSpan(job: CiJob, status: CiJobStatus, completionTime: string): EndedSpan {
  const { metadata, spec } = job;
  const { failure, exitCode, host, timings = [] } = status;
  const created = Date.parse(metadata.creationTimestamp);
  const [first] = timings;
  return {
    id: rootOf(metadata.uid),
    name: 'CiJob',
    // The API server's clock is not ours, and counts whole seconds.
    start: first ? Math.min(created, Date.parse(first.startedAt)) : created,
    end: Date.parse(completionTime),
    attributes: {
      'k8s.namespace.name': metadata.namespace ?? 'default',
      'cijob.name': metadata.name,
      'cijob.uid': metadata.uid,
      'cijob.phase': status.phase ?? 'Failed',
      'cijob.attempt': status.attempt ?? 1,
      'cijob.instance.type': spec.instance.type,
      ...(host === undefined ? {} : { 'cijob.host': host }),
      ...(exitCode === undefined ? {} : { 'process.exit.code': exitCode }),
      ...(failure ? { 'cijob.failure.class': failure.class, 'error.type': failure.reason } : {}),
    },
    ...(failure ? { error: `${failure.class}: ${failure.reason}` } : {}),
  };
}
