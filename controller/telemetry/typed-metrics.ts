import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/**
 * A metric whose labels are checked by the compiler. prom-client counts a call that lacks a label as a series of its
 * own, without that label, and says nothing; here every label has to be given.
 */
type Labels<L extends string> = [L] extends [never] ? Record<string, never> : Readonly<Record<L, string>>;

export interface TypedCounter<L extends string> {
  increment(labels: Labels<L>, by?: number): void;
}

export interface TypedGauge<L extends string> {
  set(labels: Labels<L>, value: number): void;
}

export interface TypedHistogram<L extends string> {
  /** @param value In the metric's unit, which is seconds. */
  observe(labels: Labels<L>, value: number): void;
  /** Makes the series present before the first observation, so that rate() sees that one. */
  zero(labels: Labels<L>): void;
}

export interface ExemplarHistogram<L extends string> {
  /**
   * @param value In the metric's unit, which is seconds.
   * @param traceId A trace that shows where it came from, if there is one: the newest of each bucket is its exemplar.
   */
  observe(labels: Labels<L>, value: number, traceId: string | undefined): void;
  /** Makes the series present before the first observation, so that rate() sees that one. */
  zero(labels: Labels<L>): void;
}

/** One value of a gauge that is read when Prometheus asks. */
export interface Sample<L extends string> {
  labels: Labels<L>;
  value: number;
}

interface Definition<L extends string> {
  name: string;
  help: string;
  labels: readonly L[];
}

export function counter<const L extends string>(
  registry: Registry,
  definition: Definition<L>,
): TypedCounter<L> {
  const metric = new Counter(configuration(registry, definition));
  return { increment: (labels, by = 1) => metric.inc(labels, by) };
}

export function gauge<const L extends string>(registry: Registry, definition: Definition<L>): TypedGauge<L> {
  const metric = new Gauge(configuration(registry, definition));
  return { set: (labels, value) => metric.set(labels, value) };
}

/** A gauge without a memory: at each scrape it shows what `read` returns, and nothing else. */
export function collectedGauge<const L extends string>(
  registry: Registry,
  definition: Definition<L>,
  read: () => Iterable<Sample<L>>,
): void {
  const metric: Gauge<L> = new Gauge({
    ...configuration(registry, definition),
    collect() {
      metric.reset();
      for (const { labels, value } of read()) metric.set(labels, value);
    },
  });
}

/** @param buckets Upper bounds, ascending. */
export function histogram<const L extends string>(
  registry: Registry,
  definition: Definition<L> & { buckets: number[] },
): TypedHistogram<L> {
  const metric = new Histogram({ ...configuration(registry, definition), buckets: definition.buckets });
  return { observe: (labels, value) => metric.observe(labels, value), zero: (labels) => metric.zero(labels) };
}

/** A histogram whose buckets refer to traces, for scrapers that take OpenMetrics. They add no series. */
export function exemplarHistogram<const L extends string>(
  registry: Registry,
  definition: Definition<L> & { buckets: number[] },
): ExemplarHistogram<L> {
  const { buckets } = definition;
  // prom-client's types want an exemplar to have the labels of its series, and its constructor a registry that speaks
  // OpenMetrics only; ours speaks both (exposition.ts).
  const metric: Histogram = new Histogram({
    ...configuration(registry, definition),
    registers: [],
    buckets,
    enableExemplars: true,
  });
  registry.registerMetric(metric);
  return {
    observe: (labels, value, traceId) =>
      metric.observe(
        traceId === undefined ? { labels, value } : { labels, value, exemplarLabels: { trace_id: traceId } },
      ),
    zero: (labels) => metric.zero(labels),
  };
}

function configuration<L extends string>(registry: Registry, { name, help, labels }: Definition<L>) {
  return { name, help, labelNames: labels, registers: [registry] };
}
