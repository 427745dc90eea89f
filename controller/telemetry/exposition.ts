import { Registry, type Metric, type RegistryContentType } from 'prom-client';

/** Metrics as they are sent to a scraper. */
export interface Exposition {
  contentType: string;
  body: string;
}

/** What prom-client's registry reads of a metric; its own types do not tell. */
interface Readable {
  name: string;
  help: string;
  type: string;
  get(): Promise<Values>;
  /** Histograms: the same, quicker. */
  getForPromString?(): Promise<Values>;
}
interface Values {
  name: string;
  help: string;
  type: string;
  values: unknown[];
}

/**
 * The metrics of a registry in OpenMetrics where a scraper prefers that (Prometheus does), which is the only format
 * with exemplars; else in the plain text format. Scrapes with different wishes do not disturb each other.
 *
 * @param accept The request's `Accept` header.
 */
export async function expose(registry: Registry, accept: string | undefined): Promise<Exposition> {
  const shown = wantsOpenMetrics(accept) ? openMetricsView(registry) : registry;
  return { contentType: shown.contentType, body: await shown.metrics() };
}

/**
 * prom-client's own OpenMetrics is a mode of the whole registry, and takes `_total` off the names of its counters for
 * good: the plain text would be without it from then on. So it is given stand-ins to do that to.
 */
function openMetricsView(registry: Registry): Registry<RegistryContentType> {
  const view = new Registry<RegistryContentType>();
  view.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  for (const metric of registry.getMetricsAsArray() as unknown as Readable[]) {
    const name = metric.type === 'counter' ? metric.name.replace(/_total$/, '') : metric.name;
    const read = async () => ({ ...(await (metric.getForPromString?.() ?? metric.get())), name });
    const standIn = { name, type: metric.type, getForPromString: read };
    view.registerMetric(standIn as unknown as Metric);
  }
  return view;
}

/** Whether OpenMetrics is named, and plain text is not named as better. */
function wantsOpenMetrics(accept = ''): boolean {
  const weights = { openMetrics: 0, text: 0 };
  for (const range of accept.toLowerCase().split(',')) {
    const [type, ...parameters] = range.split(';').map((part) => part.trim());
    const weight = Number(/^q=(.*)$/.exec(parameters.find((one) => one.startsWith('q=')) ?? '')?.[1] ?? 1);
    if (!(weight > 0)) continue;
    if (type === 'application/openmetrics-text') weights.openMetrics = Math.max(weights.openMetrics, weight);
    if (type === 'text/plain') weights.text = Math.max(weights.text, weight);
  }
  return weights.openMetrics > 0 && weights.openMetrics >= weights.text;
}
