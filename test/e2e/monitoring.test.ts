import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { createMetrics } from '../../controller/telemetry/metrics.ts';
import { traceIdOf } from '../../controller/telemetry/trace-ids.ts';
import { clearAway } from '../support/left-under.ts';
import { OtlpCollector, type ReceivedSpan } from '../support/otlp-collector.ts';
import { drawDashboard, type DrawnPanel, type Series } from '../support/draw-dashboard.ts';
import { Prometheus, promtool } from '../support/prometheus.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { manifest } from './support/cluster.ts';
import { Installed } from './support/installed.ts';
import {
  alertRules,
  dashboardExpressions,
  dashboards,
  filledIn,
  metricsIn,
  monitoring,
  writeRules,
} from './support/monitoring-files.ts';
import { everyOutcome, running, stopInstanceOf } from './support/outcomes.ts';

/* deploy/monitoring against a real Prometheus that scrapes a real controller that has run real jobs. */

/** What somebody looks at on the dashboards: a host, and a lane of which there is one job that passed and one that did not. */
const chosen = { host: 'build-1', lane: 'unit' };

let dir: string;
let bench: Bench;
let installed: Installed;
let prometheus: Prometheus;
let collector: OtlpCollector;
let started: number;

beforeAll(async () => {
  dir = await makeTempDir('monitoring');
  bench = await startBench({ controlPlane: true });
  collector = await OtlpCollector.start();
  installed = await Installed.start(bench, {
    slots: 8,
    flags: ['--orphan-grace-seconds', '1', '--lane', 'unit', '--lane', 'idle'],
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint },
  });
  const port = installed.controller.log().find((line) => line.port !== undefined)?.port ?? 0;
  prometheus = await Prometheus.start({
    targets: { 'cijob-controller': [`127.0.0.1:${port}`] },
    ruleFiles: [await writeRules(join(dir, 'alerts.rules.yaml'))],
  });
  await eventually('the first scrape', async () => (await prometheus.query('up == 1')).length === 1);
  started = Date.now() / 1000;
  await everyOutcome(installed);
  await retryOne();
  await oneLane();
  await leaveAnOrphan();
}, 300_000);
afterAll(async () => {
  await prometheus.stop();
  await installed.stop();
  await collector.stop();
  await bench.stop();
  await clearAway(dir);
});

/** A job whose first attempt the infrastructure loses, and whose second goes well. */
async function retryOne(): Promise<void> {
  await installed.apply(manifest('retried', { command: 'sleep 15', infraRetryLimit: 1 }));
  await stopInstanceOf(installed, await running(installed, 'retried'));
  const [job] = await installed.finished('retried');
  expect(job?.status).toMatchObject({ phase: 'Succeeded', attempt: 2 });
}

/** Jobs of a lane that the controller was told, and one of a lane that somebody made up. */
async function oneLane(): Promise<void> {
  const inLane = (lane: string, name: string, command: string) => {
    const job = manifest(name, { command });
    return { ...job, metadata: { ...job.metadata, labels: { 'ci.pikaci.dev/lane': lane } } };
  };
  await installed.apply(
    inLane('unit', 'in-lane-passed', 'true'),
    inLane('unit', 'in-lane-failed', 'exit 1'),
    inLane('made-up', 'in-no-lane', 'true'),
  );
  await installed.finished('in-lane-passed', 'in-lane-failed', 'in-no-lane');
}

/** What is left of a job that somebody removed from the cluster by force: an instance of ours that nobody knows. */
async function leaveAnOrphan(): Promise<void> {
  const { incus, project } = bench.host;
  const ours = installed.controller.log().find((line) => line.msg === 'leading')?.['controllerId'];
  const labels = {
    controller: String(ours),
    uid: randomUUID(),
    namespace: 'ci',
    name: 'orphan',
    attempt: '1',
  };
  const config = Object.entries(labels).flatMap(([key, value]) => ['--config', `user.cijob.${key}=${value}`]);
  const name = 'cijob-0123456789ab';
  await incus.incusOk(['create', 'pikaci/busybox', name, '--project', project, ...config]);
  const deadline = performance.now() + 60_000;
  while ((await incus.instances(project)).includes(name)) {
    if (performance.now() > deadline) throw new Error('the orphan is still there');
    await delay(250);
  }
}

/** Looks again until Prometheus has seen it too. */
async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within 30 s: ${what}`);
    await delay(250);
  }
}

describe('the metrics', () => {
  test('are in the form that Prometheus asks for', async () => {
    const { body } = await installed.controller.get('/metrics');
    expect(await promtool(['check', 'metrics'], body)).toMatchObject({ code: 0, stdout: '', stderr: '' });
  });

  test('tell what became of the jobs', async () => {
    await eventually('all jobs finished, by class', async () => {
      const finished = await prometheus.query('cijob_finished_total > 0');
      return ['None', 'Test', 'Timeout', 'Config', 'Infrastructure', 'Cancelled'].every((blame) =>
        finished.some(({ labels }) => labels['class'] === blame),
      );
    });
    expect(await prometheus.query('cijob_jobs{phase="Running"}')).toMatchObject([{ value: 1 }]);
    expect(await prometheus.query('cijob_retries_total')).toMatchObject([{ value: 1 }]);
    await eventually('the orphan', async () => {
      const removed = await prometheus.query('cijob_orphans_removed_total');
      return removed[0]?.value === 1;
    });
  });

  test('tell the jobs of a lane apart that the controller was told of, and of no other', async () => {
    await eventually('the jobs of the lane', async () => {
      const ran = await prometheus.query('cijob_run_seconds_count{lane="unit"}');
      return ran[0]?.value === 2;
    });
    expect(await prometheus.query('cijob_finished_total{lane="unit"} > 0')).toHaveLength(2);
    expect(await prometheus.query('sum(cijob_finished_total{lane="idle"})')).toMatchObject([{ value: 0 }]);
    const lanes = await prometheus.query('count by (lane) (cijob_finished_total)');
    expect(lanes.map(({ labels }) => labels['lane']).sort()).toEqual(['idle', 'other', 'unit']);
  });

  test('tell what the controller added, of each job that was admitted and is over', async () => {
    await eventually('the overhead of nine jobs', async () => {
      const [counted] = await prometheus.query('cijob_overhead_seconds_count');
      return counted?.value === 9;
    });
    expect((await prometheus.query('cijob_overhead_seconds_sum'))[0]?.value).toBeGreaterThan(0);
  });

  test('go with an Event on the host for an orphan that was removed', async () => {
    const told = await installed.kubectl(['describe', 'incushost', 'build-1']);
    expect(told).toMatch(
      /Warning +OrphanRemoved .*instance cijob-0123456789ab was removed: its CiJob is gone/,
    );
  });

  test('refer to the traces of the jobs behind them', async () => {
    const roots = () => collector.spans.filter(({ name }) => name === 'CiJob');
    await eventually('the exemplars of the jobs that ran', async () => {
      const exemplars = await prometheus.exemplars('cijob_run_seconds_bucket', 3600);
      const traces = new Set(roots().map(({ traceId }) => traceId));
      return exemplars.length > 1 && exemplars.every(({ labels }) => traces.has(labels['trace_id'] ?? ''));
    });
  });

  test('the leader says that it leads', async () => {
    expect(await prometheus.query('leader_election_master_status')).toMatchObject([{ value: 1 }]);
  });
});

describe('the traces', () => {
  test('are one a job: its life, the phases and the commands, all with one id, which the log has too', async () => {
    const jobs = (await installed.jobs()).filter(({ status }) => status?.completionTime !== undefined);
    await eventually('a root span of each job that is over', () =>
      Promise.resolve(
        jobs.every(({ metadata }) => spansOf(metadata.uid).some(({ name }) => name === 'CiJob')),
      ),
    );
    const retried = jobs.find(({ metadata }) => metadata.name === 'retried')!;
    const spans = spansOf(retried.metadata.uid);
    expect(spans.filter(({ name }) => name === 'Running')).toHaveLength(2);
    expect(spans.filter(({ name }) => name === 'incus launch').length).toBeGreaterThanOrEqual(2);
    const ids = new Set(spans.map(({ spanId }) => spanId));
    const [root, ...others] = spans.filter(({ parentSpanId }) => !ids.has(parentSpanId ?? ''));
    expect([root?.name, others]).toEqual(['CiJob', []]);
    const lines = installed.controller
      .log()
      .filter(({ job, msg }) => job === 'ci/retried' && msg === 'command');
    expect(new Set(lines.map((line) => line['trace_id']))).toEqual(new Set([root?.traceId]));
    for (const line of lines) expect(ids).toContain(line['span_id']);
  });

  function spansOf(uid: string): ReceivedSpan[] {
    return collector.spans.filter(({ traceId }) => traceId === traceIdOf(uid));
  }
});

describe('the dashboards', () => {
  test('ask for metrics that there are', async () => {
    const known = new Set<string>();
    for (const { name, type } of createMetrics({ version: '' }).registry.getMetricsAsArray()) {
      known.add(name);
      if (String(type) === 'histogram')
        for (const part of ['bucket', 'sum', 'count']) known.add(`${name}_${part}`);
    }
    const asked = [
      ...(await dashboardExpressions()),
      ...(await alertRules()).map(({ alert, expr }) => ({ where: alert, expr })),
    ].flatMap(({ where, expr }) => {
      const names = metricsIn(expr);
      return names.length === 0 ? [`${where}: no metric`] : names.filter((name) => !known.has(name));
    });
    expect(asked).toEqual([]);
  });

  test('show data after these jobs, each of their expressions', async () => {
    // A container takes commands as soon as it has started: only virtual machines boot.
    const quiet = (expr: string) => expr.includes('cijob_boot_seconds');
    const empty: string[] = [];
    for (const { where, expr } of await dashboardExpressions()) {
      const filled = filledIn(expr, chosen);
      const values = (await prometheus.query(filled)).filter(({ value }) => !Number.isNaN(value));
      if (values.length === 0 && !quiet(expr)) empty.push(`${where}: ${filled}`);
    }
    expect(empty).toEqual([]);
  });

  /** With PICTURES=docs/pictures in the environment they are drawn there, for people to look at. */
  test('can be drawn from what this Prometheus has', async () => {
    const pictures = process.env['PICTURES'] ?? dir;
    await mkdir(pictures, { recursive: true });
    const to = Date.now() / 1000;
    const range = { from: Math.max(started, to - 300), to, step: 1 };
    for (const { uid, title, panels } of await dashboards()) {
      const drawn: DrawnPanel[] = [];
      for (const { targets, fieldConfig, ...panel } of panels) {
        const series: Series[] = [];
        for (const { expr, legendFormat } of targets) {
          for (const { labels, points } of await prometheus.queryRange(filledIn(expr, chosen), range)) {
            const name = legendFormat.replaceAll(/\{\{(\w+)\}\}/g, (_, label: string) => labels[label] ?? '');
            if (points.length > 0) series.push({ name, points });
          }
        }
        drawn.push({ ...panel, unit: fieldConfig.defaults.unit, series });
      }
      const picture = drawDashboard(title, drawn);
      await writeFile(join(pictures, `${uid}.svg`), picture);
      expect(picture).not.toMatch(/NaN|undefined|Infinity/);
      expect(drawn.filter(({ series }) => series.length === 0).map((panel) => panel.title)).toEqual([]);
    }
  });
});

describe('the alerts', () => {
  test('are well-formed, and fire and keep silent as alerts.test.yaml says, each of them', async () => {
    const rules = join(dir, 'alerts.rules.yaml');
    expect(await promtool(['check', 'rules', rules])).toMatchObject({ code: 0 });
    await copyFile(join(monitoring, 'alerts.test.yaml'), join(dir, 'alerts.test.yaml'));
    const tested = await promtool(['test', 'rules', join(dir, 'alerts.test.yaml')]);
    expect(tested, tested.stdout + tested.stderr).toMatchObject({ code: 0 });
    const cases = parse(await readFile(join(monitoring, 'alerts.test.yaml'), 'utf8')) as {
      tests: { alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[];
    };
    const covered = cases.tests.flatMap(({ alert_rule_test: all }) =>
      all.map(
        ({ alertname, exp_alerts: expected }) => `${alertname} ${expected.length > 0 ? 'fires' : 'silent'}`,
      ),
    );
    const all = (await alertRules()).flatMap(({ alert }) => [`${alert} fires`, `${alert} silent`]);
    expect(covered.sort()).toEqual(all.sort());
  });

  test('each has a runbook', async () => {
    const runbooks = await readFile(join(monitoring, '../../docs/runbooks.md'), 'utf8');
    const headings = [...runbooks.matchAll(/^## (\w+)$/gm)].map(([, name]) => name ?? '');
    const rules = await alertRules();
    expect(headings.sort()).toEqual(rules.map(({ alert }) => alert).sort());
    for (const { alert, annotations } of rules) {
      const url = new URL(annotations.runbook_url);
      expect([url.pathname, url.hash]).toEqual([
        '/cijob-controller/docs/runbooks.md',
        `#${alert.toLowerCase()}`,
      ]);
    }
  });

  test('tell in Prometheus what was done to these jobs, and nothing else', async () => {
    await eventually('the alerts of a loss, a drift and an orphan', async () => {
      const firing = (await prometheus.alerts()).map(({ name }) => name);
      return ['CiJobDrift', 'CiJobOrphansRemoved'].every((name) => firing.includes(name));
    });
    // Two attempts of twelve were lost to the infrastructure, which is pending for its five minutes.
    const names = (await prometheus.alerts()).map(({ name }) => name);
    expect(new Set(names)).toEqual(
      new Set([
        'CiJobDrift',
        'CiJobOrphansRemoved',
        ...names.filter((name) => name === 'CiJobInfrastructureFailures'),
      ]),
    );
  });

  test('tell that no controller leads once there is none', async () => {
    await installed.controller.stop();
    await eventually('CiJobNoLeader', async () =>
      (await prometheus.alerts()).some(({ name }) => name === 'CiJobNoLeader'),
    );
    await installed.controller.daemon.start();
  });
});

test('PodMonitor, Service and probes name the port of the Deployment', async () => {
  const read = async (file: string) => readFile(join(monitoring, '..', file), 'utf8');
  const deployment = parse(await read('base/deployment.yaml')) as {
    spec: {
      selector: { matchLabels: Record<string, string> };
      template: {
        metadata: { labels: Record<string, string> };
        spec: { containers: { ports: { name: string; containerPort: number }[] }[] };
      };
    };
  };
  const monitor = parse(await read('monitoring/pod-monitor.yaml')) as {
    spec: { selector: { matchLabels: object }; podMetricsEndpoints: { port: string; path: string }[] };
  };
  const { template } = deployment.spec;
  expect(template.metadata.labels).toMatchObject(monitor.spec.selector.matchLabels);
  expect(template.spec.containers[0]?.ports).toEqual([{ name: 'http', containerPort: 8080 }]);
  expect(monitor.spec.podMetricsEndpoints[0]).toMatchObject({ port: 'http', path: '/metrics' });
});
