import type { Metrics } from './metrics.ts';

/** What a work queue calls to have its `workqueue_*` metrics counted under that name. Durations are in seconds. */
export function queueMetrics(metrics: Metrics, name: string) {
  const labels = { name };
  return {
    added: () => metrics.queueAdds.increment(labels),
    started: (waited: number) => metrics.queueWaitSeconds.observe(labels, waited),
    finished: (worked: number) => metrics.queueWorkSeconds.observe(labels, worked),
    retried: () => metrics.queueRetries.increment(labels),
  };
}
