import { createMetrics } from './metrics.ts';

const head = `# Metrics

Generated from the registry by \`npm run crds\`. Do not edit.

Served at \`/metrics\` on the address of \`--metrics-address\` (\`:8080\`). No label ever names a job: the number of series
is bounded by the number of Incus hosts, of lanes that \`--lane\` names, and by the words of the code. A standby
answers too; most of its series are missing or 0, as only the leader works.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
`;

/** What prom-client's metrics hold and its types do not tell. */
interface Described {
  labelNames?: readonly string[];
}

/** docs/metrics.md as it ought to be: ours and the control loop's, those of Node itself summed up in a line. */
export function metricsReference(): string {
  const metrics = createMetrics({ version: '' }).registry.getMetricsAsArray();
  const runtime = /^(nodejs|process)_/;
  const rows = metrics
    .filter(({ name }) => !runtime.test(name))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((metric) => {
      const labels = (metric as Described).labelNames ?? [];
      const words = labels.map((label) => `\`${label}\``).join(', ');
      return `| \`${metric.name}\` | ${String(metric.type)} | ${words} | ${metric.help.replaceAll('|', '\\|').replaceAll('<', '\\<')} |\n`;
    });
  const others = metrics.filter(({ name }) => runtime.test(name)).length;
  return `${head}${rows.join('')}\nBeside these, ${others} metrics of the Node.js process: \`process_*\` and \`nodejs_*\`.\n`;
}
