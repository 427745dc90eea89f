import type { Clock } from '../clock.ts';
import type { TraceParent } from './trace-ids.ts';

/** One trace, as far as its spans need to know. */
export interface Trace {
  /** 32 lower-case hex digits. */
  readonly traceId: string;
  /** The caller's span that the root span is a child of. */
  readonly parent: TraceParent | undefined;
  /** Whether its spans are sent at all, as the sampler decided. */
  readonly sampled: boolean;
}

/** A span that has ended: nothing is kept of those that have not. */
export interface EndedSpan {
  /** 16 lower-case hex digits. */
  id: string;
  /** Id of the span above it; the root span has none. */
  parentId?: string;
  name: string;
  /** Whether the span is a request to another system. */
  client?: boolean;
  /** Milliseconds since the epoch. */
  start: number;
  end: number;
  attributes: Readonly<Record<string, string | number>>;
  /** Why what the span is about went wrong, in a word or two. */
  error?: string;
}

/** Where traces go. No call waits for the collector, or throws because of it. */
export interface Traces {
  /** @param parent The caller's span, or the id of a trace that begins here. */
  trace(parent: TraceParent | string): Trace;
  tell(trace: Trace, span: EndedSpan): void;
  /** Sends what is left, for no longer than {@link flushMilliseconds}. Never rejects. */
  close(): Promise<void>;
}

export interface TracesOptions {
  clock: Clock;
  /** Version of the program, for the attribute `service.version`. */
  version: string;
  /** Spans were lost: the collector was too slow, out of reach, or refused them. Called for each batch. */
  onDropped: (spans: number) => void;
  /** Something is wrong that an operator should know; at most once a minute. */
  onTrouble: (why: string) => void;
}

/** How long the end of the process may be put off to send the last spans. */
export const flushMilliseconds = 2000;

/**
 * Starts tracing where the environment names a collector
 * (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). Where it does not, nothing is
 * loaded, and the answer is undefined.
 */
export async function startTraces(options: TracesOptions): Promise<Traces | undefined> {
  const {
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: own,
    OTEL_EXPORTER_OTLP_ENDPOINT: common,
    OTEL_SDK_DISABLED: disabled,
    OTEL_TRACES_EXPORTER: exporter,
  } = process.env;
  const endpoint = own?.trim() || common?.trim();
  if (!endpoint || disabled?.trim().toLowerCase() === 'true' || exporter?.trim() === 'none') return undefined;
  if (!['http:', 'https:'].includes(URL.parse(endpoint)?.protocol ?? '')) {
    // Without this, the exporter would quietly take a collector on this machine.
    options.onTrouble('the OTLP endpoint is no http or https URL: there are no traces');
    return undefined;
  }
  const { OtlpTraces } = await import('./otlp-traces.ts');
  return new OtlpTraces(options);
}
