import { collectDefaultMetrics, Registry } from 'prom-client';
import {
  collectedGauge,
  counter,
  exemplarHistogram,
  gauge,
  histogram,
  type Sample,
} from './typed-metrics.ts';

/** What is read at each scrape. What is not set yet shows no series. */
export interface MetricSources {
  /** CiJobs that exist, by phase. */
  jobs?: () => Iterable<Sample<'phase'>>;
  /** Seconds that the oldest of the waiting jobs has waited for a slot. */
  oldestWaiting?: () => Iterable<Sample<never>>;
  /** Jobs that hold their slot for longer than their own limits allow. */
  overdue?: () => Iterable<Sample<never>>;
  /** Seconds that the slowest of the finished jobs has waited for its instance to go. */
  oldestCleanUp?: () => Iterable<Sample<never>>;
  /** Seconds since the last certain view of a host. */
  observationAges?: () => Iterable<Sample<'host'>>;
  /** Slots of a host: `state` is `used` or `capacity`. */
  hostSlots?: () => Iterable<Sample<'host' | 'state'>>;
  /** 1 when the host answers, else 0. */
  hostsUp?: () => Iterable<Sample<'host'>>;
  /** Keys waiting, by queue. */
  queueDepths?: () => Iterable<Sample<'name'>>;
  /** Seconds of work in progress, by queue. */
  queueUnfinished?: () => Iterable<Sample<'name'>>;
}

export type Metrics = ReturnType<typeof createMetrics>;

/** The lane of jobs that are of none, or of one that the operator has not named. */
export const otherLane = 'other';

/** Milliseconds to a minute: what the control loop and Incus's requests take. */
const quick = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** A tenth of a second to hours: what jobs take. */
const slow = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200];

/**
 * All metrics of the controller, in a registry of their own. The names of the control loop are those of client-go and
 * controller-runtime, so that their dashboards work. No label ever names a job: the number of series is bounded by
 * hosts, lanes and the words of the code.
 *
 * @param options.lanes names of lanes that are told apart
 */
export function createMetrics(options: { version: string; lanes?: readonly string[] }) {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  // Gauges that carry the suffix of counters; they tell nothing the process_* metrics do not.
  for (const kind of ['handles', 'requests', 'resources']) {
    registry.removeSingleMetric(`nodejs_active_${kind}_total`);
  }
  gauge(registry, {
    name: 'cijob_build_info',
    help: 'Always 1; the version of the controller is in the label.',
    labels: ['version'],
  }).set({ version: options.version }, 1);
  const sources: MetricSources = {};
  collected(registry, sources);
  return {
    registry,
    sources,
    ...loopMetrics(registry),
    ...jobMetrics(registry, options.lanes ?? []),
    ...hostMetrics(registry),
  };
}

/** What client-go and controller-runtime measure. */
function loopMetrics(registry: Registry) {
  const metrics = {
    reconciles: counter(registry, {
      name: 'controller_runtime_reconcile_total',
      help: 'Reconciliations by controller and result: success or error.',
      labels: ['controller', 'result'],
    }),
    reconcileErrors: counter(registry, {
      name: 'controller_runtime_reconcile_errors_total',
      help: 'Reconciliations that ended in an error.',
      labels: ['controller'],
    }),
    reconcileSeconds: histogram(registry, {
      name: 'controller_runtime_reconcile_time_seconds',
      help: 'Duration of one reconciliation.',
      labels: ['controller'],
      buckets: quick,
    }),
    queueAdds: counter(registry, {
      name: 'workqueue_adds_total',
      help: 'Keys added to the work queue.',
      labels: ['name'],
    }),
    queueWaitSeconds: histogram(registry, {
      name: 'workqueue_queue_duration_seconds',
      help: 'How long a key waited in the work queue before it was processed.',
      labels: ['name'],
      buckets: quick,
    }),
    queueWorkSeconds: histogram(registry, {
      name: 'workqueue_work_duration_seconds',
      help: 'How long processing a key took.',
      labels: ['name'],
      buckets: quick,
    }),
    queueRetries: counter(registry, {
      name: 'workqueue_retries_total',
      help: 'Keys that came back after a failure.',
      labels: ['name'],
    }),
    apiRequests: counter(registry, {
      name: 'rest_client_requests_total',
      help: 'Requests to the Kubernetes API server by method and status code; <error> without an answer.',
      labels: ['code', 'method'],
    }),
    leading: gauge(registry, {
      name: 'leader_election_master_status',
      help: '1 while this process holds the lease, else 0.',
      labels: ['name'],
    }),
    eventsDropped: counter(registry, {
      name: 'cijob_events_dropped_total',
      help: 'Kubernetes Events not written because the API server was too slow or refused them.',
      labels: [],
    }),
    spansDropped: counter(registry, {
      name: 'cijob_spans_dropped_total',
      help: 'Spans of traces not delivered because the collector was too slow, out of reach or refused them.',
      labels: [],
    }),
  };
  // Present from the start, so that rate() sees the first one.
  metrics.reconcileErrors.increment({ controller: 'cijob' }, 0);
  metrics.queueRetries.increment({ name: 'cijob' }, 0);
  return metrics;
}

/** What becomes of jobs, and where their time goes. */
function jobMetrics(registry: Registry, lanes: readonly string[]) {
  const seconds = (part: string, help: string) =>
    exemplarHistogram(registry, { name: `cijob_${part}_seconds`, help, labels: [], buckets: slow });
  const secondsOfLane = (part: string, help: string) =>
    exemplarHistogram(registry, { name: `cijob_${part}_seconds`, help, labels: ['lane'], buckets: slow });
  const finished = counter(registry, {
    name: 'cijob_finished_total',
    help: 'CiJobs that reached their end, by result, class of failure (None for a success) and lane.',
    labels: ['result', 'class', 'lane'],
  });
  const queueSeconds = secondsOfLane(
    'queue',
    'From creation of a CiJob to its admission to a host, by lane.',
  );
  const runSeconds = secondsOfLane('run', 'From the launch of the command to its end being seen, by lane.');
  // Present from the start, so that rate() sees the first one of each.
  for (const lane of [...lanes, otherLane]) {
    queueSeconds.zero({ lane });
    runSeconds.zero({ lane });
    finished.increment({ result: 'Succeeded', class: 'None', lane }, 0);
    for (const failure of ['Test', 'Timeout', 'Infrastructure', 'Config']) {
      finished.increment({ result: 'Failed', class: failure, lane }, 0);
    }
    finished.increment({ result: 'Cancelled', class: 'Cancelled', lane }, 0);
  }
  return {
    finished,
    retries: counter(registry, {
      name: 'cijob_retries_total',
      help: 'New attempts after an infrastructure failure, by the reason of the failure.',
      labels: ['reason'],
    }),
    queueSeconds,
    provisionSeconds: seconds('provision', 'From admission to the start of the instance.'),
    bootSeconds: seconds('boot', 'From the start of the instance to a guest that takes commands.'),
    runSeconds,
    collectSeconds: seconds('collect', 'From the end of the command to its result and log being read.'),
    overheadSeconds: exemplarHistogram(registry, {
      name: 'cijob_overhead_seconds',
      help:
        'What the controller itself added: from the admission of the last attempt to its outcome, less the time in ' +
        'which a command for Incus was under way (its turn and its Secrets included), the host was out of reach, the ' +
        'guest booted, or the command of the CiJob ran. Attempts that another process admitted are left out.',
      labels: [],
      buckets: quick,
    }),
  };
}

/** What the Incus hosts do. */
function hostMetrics(registry: Registry) {
  return {
    incusCommands: counter(registry, {
      name: 'cijob_incus_commands_total',
      help: 'Requests to Incus by verb, host and outcome.',
      labels: ['verb', 'host', 'outcome'],
    }),
    incusCommandSeconds: histogram(registry, {
      name: 'cijob_incus_command_duration_seconds',
      help: 'Duration of a request to Incus, its operation included.',
      labels: ['verb', 'host', 'outcome'],
      buckets: quick,
    }),
    eventLagSeconds: histogram(registry, {
      name: 'cijob_event_lag_seconds',
      help: 'From the time Incus put on an event to its arrival here, clock differences included.',
      labels: ['host'],
      buckets: quick,
    }),
    orphansRemoved: counter(registry, {
      name: 'cijob_orphans_removed_total',
      help: 'Instances of this installation that were removed because their CiJob is gone.',
      labels: ['host'],
    }),
    drift: counter(registry, {
      name: 'cijob_drift_total',
      help: 'Instances that changed without the controller, by kind of change.',
      labels: ['host', 'kind'],
    }),
  };
}

/** What is read when Prometheus asks. */
function collected(registry: Registry, sources: MetricSources): void {
  const add = <const L extends string>(
    name: string,
    help: string,
    labels: readonly L[],
    read: () => Iterable<Sample<L>> | undefined,
  ) => collectedGauge(registry, { name, help, labels }, () => read() ?? []);
  add('cijob_jobs', 'CiJobs that exist, by phase.', ['phase'], () => sources.jobs?.());
  add('cijob_oldest_waiting_seconds', 'How long the oldest waiting CiJob has waited for a slot.', [], () =>
    sources.oldestWaiting?.(),
  );
  add('cijob_overdue_jobs', 'CiJobs that hold a slot for longer than their own limits allow.', [], () =>
    sources.overdue?.(),
  );
  add(
    'cijob_oldest_cleanup_seconds',
    'How long the slowest finished CiJob has waited for its instance to be removed.',
    [],
    () => sources.oldestCleanUp?.(),
  );
  add('cijob_observation_age_seconds', 'Time since the last certain view of a host.', ['host'], () =>
    sources.observationAges?.(),
  );
  add('cijob_host_slots', 'Room for instances on a host: used, and capacity.', ['host', 'state'], () =>
    sources.hostSlots?.(),
  );
  add('cijob_host_up', '1 while the Incus host answers, else 0.', ['host'], () => sources.hostsUp?.());
  add('workqueue_depth', 'Keys waiting in the work queue.', ['name'], () => sources.queueDepths?.());
  add(
    'workqueue_unfinished_work_seconds',
    'Work in progress, summed over workers; it grows when one is stuck.',
    ['name'],
    () => sources.queueUnfinished?.(),
  );
}
