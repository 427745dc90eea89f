import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify, parse } from 'yaml';
import * as z from 'zod';

export const monitoring = join(import.meta.dirname, '../../../deploy/monitoring');

const Rule = z.object({
  alert: z.string(),
  expr: z.string(),
  for: z.string().optional(),
  labels: z.object({ severity: z.enum(['warning', 'critical']) }),
  annotations: z.object({ summary: z.string(), runbook_url: z.string() }),
});
const PrometheusRule = z.object({
  spec: z.object({ groups: z.array(z.object({ name: z.string(), rules: z.array(Rule) })) }),
});
export type AlertRule = z.infer<typeof Rule>;

/** The alerts of deploy/monitoring. */
export async function alertRules(): Promise<AlertRule[]> {
  const { spec } = PrometheusRule.parse(parse(await readFile(join(monitoring, 'alerts.yaml'), 'utf8')));
  return spec.groups.flatMap((group) => group.rules);
}

/** Writes the rules as Prometheus itself reads them, without the Kubernetes object around them. */
export async function writeRules(file: string): Promise<string> {
  const { spec } = PrometheusRule.parse(parse(await readFile(join(monitoring, 'alerts.yaml'), 'utf8')));
  await writeFile(file, stringify(spec));
  return file;
}

const Dashboard = z.object({
  uid: z.string(),
  title: z.string(),
  panels: z.array(
    z.object({
      title: z.string(),
      type: z.string(),
      gridPos: z.object({ x: z.number(), y: z.number(), w: z.number(), h: z.number() }),
      fieldConfig: z.object({ defaults: z.object({ unit: z.string() }) }),
      targets: z.array(z.object({ expr: z.string(), legendFormat: z.string() })).min(1),
    }),
  ),
});
export type Dashboard = z.infer<typeof Dashboard>;

/** The dashboards of deploy/monitoring. */
export async function dashboards(): Promise<Dashboard[]> {
  const dir = join(monitoring, 'dashboards');
  const files = (await readdir(dir)).sort();
  return Promise.all(
    files.map(async (file) => Dashboard.parse(JSON.parse(await readFile(join(dir, file), 'utf8')))),
  );
}

/** An expression that people look at, and where it stands. */
export interface Expression {
  where: string;
  expr: string;
}

/** Every expression of every dashboard. */
export async function dashboardExpressions(): Promise<Expression[]> {
  return (await dashboards()).flatMap(({ title, panels }) =>
    panels.flatMap((panel) => panel.targets.map(({ expr }) => ({ where: `${title}: ${panel.title}`, expr }))),
  );
}

/** What Grafana puts in before it asks Prometheus, for a host and a lane that somebody has chosen. */
export function filledIn(expr: string, chosen: { host: string; lane: string }): string {
  return expr
    .replaceAll('$__rate_interval', '1m')
    .replaceAll('$__range', '5m')
    .replaceAll('$host', chosen.host)
    .replaceAll('$lane', chosen.lane);
}

/** Names of metrics in an expression: in this house they all begin with one of these words. */
export function metricsIn(expr: string): string[] {
  const withoutText = expr.replaceAll(/"[^"]*"/g, '""');
  const names = withoutText.match(
    /\b(?:cijob|controller_runtime|workqueue|rest_client|leader_election|process|nodejs)_[a-z0-9_]+/g,
  );
  return [...new Set(names ?? [])];
}
