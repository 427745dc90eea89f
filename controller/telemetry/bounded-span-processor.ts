import {
  BatchSpanProcessor,
  type ReadableSpan,
  type SpanExporter,
  type SpanProcessor,
} from '@opentelemetry/sdk-trace';

export interface BoundedSpanProcessorOptions {
  exporter: SpanExporter;
  /** Spans that were not delivered, and why. */
  onDropped: (spans: number, why: string) => void;
  /** The most spans that are kept, those on their way included. */
  maxSpans?: number;
}

/** Spans are gathered for this long; in milliseconds. Those of a controller that is killed meanwhile are lost. */
const gatherMilliseconds = 1000;
/** What an exporter that never answers is given; in milliseconds. */
const exportMilliseconds = 5000;

/** `ExportResultCode.SUCCESS`, whose package is the SDK's own business. */
const success = 0;

/** The SDK's batches, with a limit on all that has not been delivered, and a count of what never will be. */
export class BoundedSpanProcessor implements SpanProcessor {
  readonly #options: BoundedSpanProcessorOptions;
  readonly #maxSpans: number;
  readonly #batches: BatchSpanProcessor;
  /** Spans taken and not yet told to be delivered or lost. */
  #open = 0;
  #givenUp = false;

  constructor(options: BoundedSpanProcessorOptions) {
    this.#options = options;
    this.#maxSpans = options.maxSpans ?? 2048;
    const { exporter } = options;
    this.#batches = new BatchSpanProcessor({
      // All that is open fits, so that nothing is dropped in there without being counted here.
      maxQueueSize: this.#maxSpans,
      scheduledDelayMillis: gatherMilliseconds,
      exportTimeoutMillis: exportMilliseconds,
      exporter: {
        export: (spans, done) =>
          exporter.export(spans, (result) => {
            const refused = (result.code as number) !== success;
            const why = result.error?.message.slice(0, 256) || 'the collector refused them';
            this.#settle(spans.length, refused ? why : undefined);
            done(result);
          }),
        shutdown: () => exporter.shutdown(),
      },
    });
  }

  onStart(): void {
    // Spans are told when they have ended.
  }

  onEnd(span: ReadableSpan): void {
    if (this.#open >= this.#maxSpans) {
      this.#options.onDropped(1, 'the collector is too slow');
      return;
    }
    this.#open += 1;
    this.#batches.onEnd(span);
  }

  forceFlush(): Promise<void> {
    return this.#batches.forceFlush();
  }

  shutdown(): Promise<void> {
    return this.#batches.shutdown();
  }

  /** Counts what is not delivered yet as lost: the process does not wait for the collector any longer. */
  giveUp(why: string): void {
    if (this.#open > 0) this.#settle(this.#open, why);
    this.#givenUp = true;
  }

  /** Spans are delivered, or lost for a reason. */
  #settle(spans: number, lost?: string): void {
    if (this.#givenUp) return;
    this.#open -= spans;
    if (lost !== undefined) this.#options.onDropped(spans, lost);
  }
}
