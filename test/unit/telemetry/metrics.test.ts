import { describe, expect, it } from 'vitest';
import { createMetrics } from '../../../controller/telemetry/metrics.ts';

describe('the metrics', () => {
  it('have the names that dashboards know', () => {
    const names = createMetrics({ version: '1.2.3' })
      .registry.getMetricsAsArray()
      .map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining([
        'controller_runtime_reconcile_total',
        'controller_runtime_reconcile_errors_total',
        'controller_runtime_reconcile_time_seconds',
        'workqueue_depth',
        'workqueue_adds_total',
        'workqueue_queue_duration_seconds',
        'workqueue_work_duration_seconds',
        'workqueue_retries_total',
        'workqueue_unfinished_work_seconds',
        'rest_client_requests_total',
        'leader_election_master_status',
        'process_cpu_seconds_total',
        'process_resident_memory_bytes',
      ]),
    );
    expect(names.filter((name) => name.startsWith('cijob_')).sort()).toMatchInlineSnapshot(`
      [
        "cijob_boot_seconds",
        "cijob_build_info",
        "cijob_collect_seconds",
        "cijob_drift_total",
        "cijob_event_lag_seconds",
        "cijob_events_dropped_total",
        "cijob_finished_total",
        "cijob_host_slots",
        "cijob_host_up",
        "cijob_incus_command_duration_seconds",
        "cijob_incus_commands_total",
        "cijob_jobs",
        "cijob_observation_age_seconds",
        "cijob_oldest_cleanup_seconds",
        "cijob_oldest_waiting_seconds",
        "cijob_orphans_removed_total",
        "cijob_overdue_jobs",
        "cijob_overhead_seconds",
        "cijob_provision_seconds",
        "cijob_queue_seconds",
        "cijob_retries_total",
        "cijob_run_seconds",
        "cijob_spans_dropped_total",
      ]
    `);
  });

  it('follow the naming practice of Prometheus', () => {
    const metrics = createMetrics({ version: '1.2.3' });
    for (const { name, help, type } of metrics.registry.getMetricsAsArray()) {
      expect(name).toMatch(/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/);
      // The type is a string, whatever its declaration says.
      expect([name, name.endsWith('_total')]).toEqual([name, String(type) === 'counter']);
      expect(name).not.toMatch(/_(ms|msec|millis|milliseconds|minutes|mb|kb|count|sum|bucket)(_|$)/);
      expect(help).not.toBe('');
    }
  });

  it('show what their sources say at the scrape, and forget what is gone', async () => {
    const metrics = createMetrics({ version: '1.2.3' });
    let phases = ['Running', 'Pending'];
    metrics.sources.jobs = () => phases.map((phase) => ({ labels: { phase }, value: 2 }));
    expect(await metrics.registry.metrics()).toContain('cijob_jobs{phase="Running"} 2');
    phases = ['Pending'];
    const text = await metrics.registry.metrics();
    expect(text).not.toContain('phase="Running"');
    expect(text).toContain('cijob_jobs{phase="Pending"} 2');
  });

  it('name the build', async () => {
    const { registry } = createMetrics({ version: '1.2.3' });
    expect(await registry.metrics()).toContain('cijob_build_info{version="1.2.3"} 1');
  });

  it('make a missing or a made-up label a compile error', () => {
    const metrics = createMetrics({ version: '1.2.3' });
    // Never run: only the compiler reads them, and refuses the file if one of them were allowed.
    const mistakes = () => {
      // @ts-expect-error -- class is missing
      metrics.finished.increment({ result: 'Failed' });
      // @ts-expect-error -- no metric knows jobs
      metrics.queueSeconds.observe({ job: 'a' }, 1, undefined);
      // @ts-expect-error -- the value is missing
      metrics.eventLagSeconds.observe({ host: 'a' });
    };
    expect(mistakes).toBeTypeOf('function');
  });

  it('leave two controllers in one process apart', async () => {
    const [one, other] = [createMetrics({ version: '1' }), createMetrics({ version: '2' })];
    one.retries.increment({ reason: 'HostGone' });
    expect(await other.registry.metrics()).not.toContain('HostGone');
  });
});
