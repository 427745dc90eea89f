import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { run, type CommandResult } from './command.ts';
import { Daemon } from './daemon.ts';
import { freePort } from './free-port.ts';
import { clearAway } from './left-under.ts';
import { makeTempDir } from './temp-dir.ts';

export interface PrometheusOptions {
  /** What is scraped, by job name: "127.0.0.1:8080". The path is /metrics. */
  targets: Record<string, readonly string[]>;
  /** Paths of rule files. */
  ruleFiles?: readonly string[];
  /** How often targets are scraped and rules evaluated. Default: 500 ms, so that tests need not wait. */
  intervalMs?: number;
}

/** The Debian package with prometheus and promtool. */
export const prometheusPackages = ['prometheus'];

const sample = z.object({
  metric: z.record(z.string(), z.string()),
  value: z.tuple([z.number(), z.string()]),
});
const matrix = z.object({
  data: z.object({
    result: z.array(
      z.object({
        metric: z.record(z.string(), z.string()),
        values: z.array(z.tuple([z.number(), z.string()])),
      }),
    ),
  }),
});
/** One series of an instant query: its labels, and its value as text. */
export interface Sample {
  labels: Record<string, string>;
  value: number;
}

/** A real Prometheus on loopback, with its data in a directory of its own. */
export class Prometheus implements AsyncDisposable {
  /** http://127.0.0.1:PORT */
  readonly url: string;
  readonly #dir: string;
  readonly #daemon: Daemon;

  private constructor(dir: string, url: string, daemon: Daemon) {
    this.#dir = dir;
    this.url = url;
    this.#daemon = daemon;
  }

  static async start({ targets, ruleFiles = [], intervalMs = 500 }: PrometheusOptions): Promise<Prometheus> {
    const dir = await makeTempDir('prom');
    try {
      const address = `127.0.0.1:${await freePort()}`;
      const url = `http://${address}`;
      const every = `${intervalMs}ms`;
      const config = {
        global: { scrape_interval: every, scrape_timeout: every, evaluation_interval: every },
        rule_files: ruleFiles,
        scrape_configs: Object.entries(targets).map(([job, addresses]) => ({
          job_name: job,
          static_configs: [{ targets: addresses }],
        })),
      };
      // JSON is YAML too.
      await writeFile(join(dir, 'prometheus.yml'), JSON.stringify(config));
      const daemon = await Daemon.start({
        name: 'prometheus',
        file: 'prometheus',
        args: [
          `--config.file=${join(dir, 'prometheus.yml')}`,
          `--storage.tsdb.path=${join(dir, 'data')}`,
          `--web.listen-address=${address}`,
          '--enable-feature=exemplar-storage',
        ],
        logFile: join(dir, 'prometheus.log'),
        isReady: async () => (await fetch(`${url}/-/ready`)).ok,
      });
      return new Prometheus(dir, url, daemon);
    } catch (error) {
      await clearAway(dir);
      throw error;
    }
  }

  /** An instant query (PromQL) that yields a vector. */
  async query(expression: string): Promise<Sample[]> {
    const answer = z.object({ data: z.object({ result: z.array(sample) }) });
    const { data } = answer.parse(await this.#get(`/api/v1/query?query=${encodeURIComponent(expression)}`));
    return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  }

  /** The traces that series refer to, over the last `seconds`: labels of the exemplars, and the value each is of. */
  async exemplars(expression: string, seconds: number): Promise<Sample[]> {
    const end = Date.now() / 1000;
    const parameters = new URLSearchParams({
      query: expression,
      start: String(end - seconds),
      end: String(end),
    });
    const exemplar = z.object({ labels: z.record(z.string(), z.string()), value: z.string() });
    const answer = z.object({ data: z.array(z.object({ exemplars: z.array(exemplar) })) });
    const { data } = answer.parse(await this.#get(`/api/v1/query_exemplars?${parameters.toString()}`));
    return data.flatMap(({ exemplars }) =>
      exemplars.map(({ labels, value }) => ({ labels, value: Number(value) })),
    );
  }

  /** An expression over time, from `from` to `to` (seconds since the epoch). Points without a number are left out. */
  async queryRange(
    expression: string,
    { from, to, step }: { from: number; to: number; step: number },
  ): Promise<{ labels: Record<string, string>; points: [number, number][] }[]> {
    const parameters = new URLSearchParams({
      query: expression,
      start: String(from),
      end: String(to),
      step: String(step),
    });
    const { data } = matrix.parse(await this.#get(`/api/v1/query_range?${parameters.toString()}`));
    return data.result.map(({ metric, values }) => ({
      labels: metric,
      points: values
        .map(([time, text]): [number, number] => [time, Number(text)])
        .filter(([, value]) => Number.isFinite(value)),
    }));
  }

  /** Names of the alerts that are pending or firing now. */
  async alerts(): Promise<{ name: string; state: string }[]> {
    const alert = z.object({ labels: z.object({ alertname: z.string() }), state: z.string() });
    const answer = z.object({ data: z.object({ alerts: z.array(alert) }) });
    const { data } = answer.parse(await this.#get('/api/v1/alerts'));
    return data.alerts.map(({ labels, state }) => ({ name: labels.alertname, state }));
  }

  async stop(): Promise<void> {
    await this.#daemon.stop();
    await clearAway(this.#dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #get(path: string): Promise<unknown> {
    const response = await fetch(`${this.url}${path}`);
    if (!response.ok) throw new Error(`prometheus answered ${response.status}: ${await response.text()}`);
    return response.json();
  }
}

/** Runs promtool, which comes with Prometheus: `check rules FILE`, `check metrics` with the metrics as input. */
export function promtool(args: readonly string[], input?: string): Promise<CommandResult> {
  return run('promtool', args, input === undefined ? {} : { input });
}
