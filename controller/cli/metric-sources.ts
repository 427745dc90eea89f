import type { CiJob } from '../api/cijob.ts';
import type { Clock } from '../clock.ts';
import type { Host, HostEvents } from '../hosts/host.ts';
import type { EngineOptions } from '../reconcile/engine.ts';
import type { WorkQueue } from '../reconcile/work-queue.ts';
import type { Metrics, MetricSources } from '../telemetry/metrics.ts';
import { jobGauges } from './job-gauges.ts';

const name = 'cijob';

/** What the engine tells of itself, as client-go and controller-runtime count it. */
export function loopMeasures(
  metrics: Metrics,
): Required<Pick<EngineOptions, 'onReconcile' | 'queueObserver'>> {
  return {
    onReconcile(seconds, failed) {
      metrics.reconcileSeconds.observe({ controller: name }, seconds);
      metrics.reconciles.increment({ controller: name, result: failed ? 'error' : 'success' });
      if (failed) metrics.reconcileErrors.increment({ controller: name });
    },
    queueObserver: {
      added: () => metrics.queueAdds.increment({ name }),
      started: (waited) => metrics.queueWaitSeconds.observe({ name }, waited),
      finished: (worked) => metrics.queueWorkSeconds.observe({ name }, worked),
      retried: () => metrics.queueRetries.increment({ name }),
    },
  };
}

/** What the hosts tell of their requests. */
export function hostMeasures(metrics: Metrics): Pick<HostEvents, 'command' | 'eventLag'> {
  return {
    command(host, verb, outcome, seconds) {
      metrics.incusCommands.increment({ host, verb, outcome });
      metrics.incusCommandSeconds.observe({ host, verb, outcome }, seconds);
    },
    eventLag: (host, seconds) => metrics.eventLagSeconds.observe({ host }, Math.max(0, seconds)),
  };
}

/** Where the gauges look at each scrape. */
export interface Scraped {
  clock: Clock;
  jobs: () => readonly CiJob[];
  pool: {
    all(): readonly Pick<Host, 'name' | 'observedAt' | 'spec' | 'state'>[];
    /** Slots of a host that are taken. */
    used(host: string): number;
  };
  queue: () => Pick<WorkQueue, 'depth' | 'unfinishedSeconds'>;
}

/** What the gauges show. */
export function metricSources({ clock, jobs, pool, queue }: Scraped): Required<MetricSources> {
  const gauges = oncePerScrape(clock, () => jobGauges(jobs(), clock.now()));
  return {
    jobs: () => countBy(jobs().map((job) => job.status?.phase ?? 'Pending')),
    oldestWaiting: () => [{ labels: {}, value: gauges().oldestWaiting }],
    overdue: () => [{ labels: {}, value: gauges().overdue }],
    oldestCleanUp: () => [{ labels: {}, value: gauges().oldestCleanUp }],
    observationAges: () =>
      pool.all().map((host) => ({
        labels: { host: host.name },
        value: host.observedAt === 0 ? Infinity : (clock.now() - host.observedAt) / 1000,
      })),
    hostSlots: () =>
      pool.all().flatMap((host) => [
        { labels: { host: host.name, state: 'used' }, value: pool.used(host.name) },
        { labels: { host: host.name, state: 'capacity' }, value: host.spec.capacity.instances },
      ]),
    hostsUp: () =>
      pool.all().map((host) => ({ labels: { host: host.name }, value: host.state.kind === 'up' ? 1 : 0 })),
    queueDepths: () => [{ labels: { name }, value: queue().depth }],
    queueUnfinished: () => [{ labels: { name }, value: queue().unfinishedSeconds }],
  };
}

/** A value that several gauges of one scrape show, and that costs a look at every job: computed once a second at most. */
function oncePerScrape<T>(clock: Clock, compute: () => T): () => T {
  let last: { at: number; value: T } | undefined;
  return () => {
    const now = clock.now();
    if (!last || now < last.at || now >= last.at + 1_000) last = { at: now, value: compute() };
    return last.value;
  };
}

function countBy(phases: readonly string[]): { labels: { phase: string }; value: number }[] {
  const counts = new Map<string, number>();
  for (const phase of phases) counts.set(phase, (counts.get(phase) ?? 0) + 1);
  return [...counts].map(([phase, value]) => ({ labels: { phase }, value }));
}
