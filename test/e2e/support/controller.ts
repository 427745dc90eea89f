import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Daemon } from '../../support/daemon.ts';

const root = join(import.meta.dirname, '../../..');

export interface ControllerProcessOptions {
  /** Default: none, as in a pod. */
  kubeconfig?: string;
  /** How it is started: a program and its first arguments. Default: the repository's, by this Node. */
  program?: readonly [string, ...string[]];
  /** The controller's own namespace. */
  namespace: string;
  logFile: string;
  flags?: readonly string[];
  /** Added to the environment. */
  env?: Record<string, string>;
  /** The line of its log with which it counts as started. Default: "reconciling". */
  startedBy?: string;
}

/** A line of the controller's log. */
export interface LogLine {
  level: string;
  msg: string;
  job?: string;
  host?: string;
  verb?: string;
  port?: number;
  [field: string]: unknown;
}

/** The real controller, as a process of its own that can be killed and started again. */
export class ControllerProcess implements AsyncDisposable {
  readonly daemon: Daemon;
  readonly #logFile: string;

  private constructor(daemon: Daemon, logFile: string) {
    this.daemon = daemon;
    this.#logFile = logFile;
  }

  /** Starts it and waits until it reconciles. */
  static async start(options: ControllerProcessOptions): Promise<ControllerProcess> {
    const { kubeconfig, namespace, logFile, flags = [], env = {}, startedBy = 'reconciling' } = options;
    const [file, ...first] = options.program ?? [process.execPath, join(root, 'controller/main.ts')];
    let already = 0;
    const daemon = await Daemon.start({
      name: 'cijob controller',
      file,
      args: [
        ...first,
        'controller',
        ...(kubeconfig === undefined ? [] : ['--kubeconfig', kubeconfig]),
        ...['--namespace', namespace],
        ...['--metrics-address', '127.0.0.1:0', '--log-level', 'trace'],
        ...flags,
      ],
      logFile,
      env,
      isReady: () => {
        const begun = readLog(logFile).filter((line) => line.msg === startedBy).length;
        if (begun <= already) return Promise.resolve(false);
        already = begun;
        return Promise.resolve(true);
      },
    });
    return new ControllerProcess(daemon, logFile);
  }

  log(): LogLine[] {
    return readLog(this.#logFile);
  }

  /** One of its pages, such as `/metrics`. */
  async get(path: string): Promise<{ status: number; body: string }> {
    const port = this.log().findLast((line) => line.port !== undefined)?.port ?? 0;
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, body: await response.text() };
  }

  async stop(): Promise<void> {
    await this.daemon.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function readLog(file: string): LogLine[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as LogLine);
}
