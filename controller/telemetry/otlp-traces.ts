import {
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace as traceApi,
  TraceFlags,
  type Context,
  type Tracer,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import {
  defaultResource,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from '@opentelemetry/resources';
import { SamplingDecision, TracerProvider, type Sampler } from '@opentelemetry/sdk-trace';
import { BoundedSpanProcessor } from './bounded-span-processor.ts';
import { samplerOf } from './sampler.ts';
import type { TraceParent } from './trace-ids.ts';
import { flushMilliseconds, type EndedSpan, type Trace, type Traces, type TracesOptions } from './traces.ts';

/** The least time between two complaints; in milliseconds. */
const complaintInterval = 60_000;
/** What one try to send a batch may take, everything included; in milliseconds. */
const sendMilliseconds = 2000;

/**
 * Sends spans by OTLP over HTTP, as JSON. Endpoint, headers and certificates are read from the environment by the
 * exporter itself.
 */
export class OtlpTraces implements Traces {
  readonly #spans: BoundedSpanProcessor;
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;
  readonly #sampler: Sampler;
  readonly #options: TracesOptions;
  /** What the SDK is given when it asks for ids. */
  readonly #next = { traceId: '', spanId: '' };
  #complainedAt = -Infinity;

  constructor(options: TracesOptions) {
    this.#options = options;
    const { OTEL_TRACES_SAMPLER: sampler, OTEL_TRACES_SAMPLER_ARG: argument } = process.env;
    this.#sampler = samplerOf(sampler, argument, (why) => this.#complain(why));
    this.#spans = new BoundedSpanProcessor({
      exporter: new OTLPTraceExporter({ timeoutMillis: sendMilliseconds, concurrencyLimit: 4 }),
      onDropped: (spans, why) => {
        options.onDropped(spans);
        this.#complain(`traces are lost: ${why}`);
      },
    });
    this.#provider = new TracerProvider({
      sampler: this.#sampler,
      resource: defaultResource()
        .merge(
          resourceFromAttributes({ 'service.name': 'cijob-controller', 'service.version': options.version }),
        )
        .merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] })),
      idGenerator: {
        generateTraceId: () => this.#next.traceId,
        generateSpanId: () => this.#next.spanId,
      },
      spanProcessors: [this.#spans],
    });
    this.#tracer = this.#provider.getTracer('cijob-controller', options.version);
  }

  trace(parent: TraceParent | string): Trace {
    const traceId = typeof parent === 'string' ? parent : parent.traceId;
    const caller = typeof parent === 'string' ? undefined : parent;
    const { decision } = this.#sampler.shouldSample(
      caller ? contextOf(caller, true) : ROOT_CONTEXT,
      traceId,
      '',
      SpanKind.INTERNAL,
      {},
      [],
    );
    return { traceId, parent: caller, sampled: decision === SamplingDecision.RECORD_AND_SAMPLED };
  }

  tell({ traceId, parent, sampled }: Trace, span: EndedSpan): void {
    if (!sampled) return;
    this.#next.traceId = traceId;
    this.#next.spanId = span.id;
    const above =
      span.parentId !== undefined
        ? contextOf({ traceId, spanId: span.parentId, sampled }, false)
        : parent
          ? contextOf(parent, true)
          : ROOT_CONTEXT;
    const started = this.#tracer.startSpan(
      span.name,
      {
        kind: span.client ? SpanKind.CLIENT : SpanKind.INTERNAL,
        // Numbers that lie before the start of the process would be taken for its own clock.
        startTime: new Date(span.start),
        attributes: span.attributes,
      },
      above,
    );
    if (span.error !== undefined) started.setStatus({ code: SpanStatusCode.ERROR, message: span.error });
    started.end(new Date(Math.max(span.start, span.end)));
  }

  async close(): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<undefined>();
    const cancel = this.#options.clock.after(flushMilliseconds, () => resolve(undefined));
    // What could not be sent has been counted.
    await Promise.race([this.#provider.shutdown().catch(() => undefined), late]);
    cancel();
    this.#spans.giveUp('the collector did not answer in time');
  }

  #complain(why: string): void {
    const now = this.#options.clock.now();
    if (now - this.#complainedAt < complaintInterval) return;
    this.#complainedAt = now;
    this.#options.onTrouble(why);
  }
}

function contextOf({ traceId, spanId, sampled }: TraceParent, isRemote: boolean): Context {
  const traceFlags = sampled ? TraceFlags.SAMPLED : TraceFlags.NONE;
  return traceApi.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags, isRemote });
}
