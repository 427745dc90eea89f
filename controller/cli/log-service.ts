import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import type { Clock } from '../clock.ts';
import { Artifacts } from '../hosts/artifacts.ts';
import { LiveLogs, type LogSource } from '../hosts/live-logs.ts';
import { AccessReview } from '../kube/access-review.ts';
import type { KubeClient } from '../kube/client.ts';
import type { ServedLogs } from '../kube/log-answer.ts';
import { serveLogs, type LogServer } from '../kube/log-server.ts';
import type { ServedShells } from '../kube/shell-server.ts';
import { LogStore } from '../logs/log-store.ts';
import { isFinished } from '../reconcile/step.ts';
import { auditLog } from '../telemetry/audit.ts';
import { parseAddress } from '../telemetry/http.ts';
import type { Logger } from '../telemetry/log.ts';
import { UsageError } from './usage-error.ts';

/** Flags of `cijob controller` that are about logs. */
export interface LogOptions {
  logDir?: string;
  logMaxBytes: number;
  logTotalBytes: number;
  artifactsMaxBytes: number;
  logAddress: string;
  tlsCert?: string;
  tlsKey?: string;
}

/** The CiJobs of the cluster, once they are known. */
export interface JobsOfCluster {
  readonly ready: boolean;
  job(key: string): CiJob | undefined;
  jobUids(): ReadonlySet<string> | undefined;
}

/** What there is to serve while this process leads. */
interface Led {
  logs?: ServedLogs;
  shells?: ServedShells;
}

const sweepInterval = 60_000;

/** The logs of the controller: kept while it leads, and served to those who may read them. */
export class LogService {
  readonly #options: LogOptions;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #server: LogServer | undefined;
  readonly #led: Led;
  #store: LogStore | undefined;
  /** Attempts that we know to be over before the cluster shows it. */
  readonly #over = new Set<string>();
  #cancelSweep: () => void = () => undefined;

  private constructor(
    options: LogOptions,
    clock: Clock,
    log: Logger,
    server: LogServer | undefined,
    led: Led,
  ) {
    this.#led = led;
    this.#options = options;
    this.#clock = clock;
    this.#log = log;
    this.#server = server;
  }

  /**
   * Begins to serve, so that a controller that does not lead can say so. Undefined when no log is to be kept.
   *
   * @throws UsageError when the flags do not go together.
   */
  static async start(
    options: LogOptions,
    client: KubeClient,
    clock: Clock,
    log: Logger,
  ): Promise<LogService | undefined> {
    const { logDir, tlsCert, tlsKey, logAddress } = options;
    if ((tlsCert === undefined) !== (tlsKey === undefined)) {
      throw new UsageError('--tls-cert and --tls-key go together');
    }
    if (logDir === undefined) {
      if (tlsCert !== undefined)
        throw new UsageError('--tls-cert without --log-dir: there is no log to serve');
      return undefined;
    }
    // Requests may come before there is a leader, even before the service is made.
    const led: Led = {};
    const server =
      tlsCert === undefined || tlsKey === undefined
        ? undefined
        : await serveLogs({
            listen: parseAddress(logAddress),
            files: { certificate: tlsCert, key: tlsKey },
            clock,
            review: new AccessReview(client, clock),
            logs: () => led.logs,
            shells: () => led.shells,
            trail: auditLog(clock),
            onError: (what, err) => log.warn({ err }, what),
          });
    if (server) log.info({ logPort: server.port }, 'serving logs and shells');
    else log.warn('logs are kept but not served: --tls-cert and --tls-key are missing');
    return new LogService(options, clock, log, server, led);
  }

  /** Opens the directory, now that nobody else writes there. Returns what feeds it. */
  async lead(cluster: () => JobsOfCluster): Promise<{ logs: LiveLogs; artifacts: Artifacts }> {
    const { logDir = '', logMaxBytes, logTotalBytes, artifactsMaxBytes } = this.#options;
    const store = await LogStore.open({
      directory: logDir,
      maxBytes: logMaxBytes,
      maxArchiveBytes: artifactsMaxBytes,
      totalBytes: logTotalBytes,
      clock: this.#clock,
      isLive: (name) => {
        if (!cluster().ready) return true;
        const job = jobOf(cluster(), name);
        return job !== undefined && !isFinished(job);
      },
      onError: (what, err) => this.#log.warn({ err }, what),
    });
    this.#store = store;
    const logs = new LiveLogs({
      size: (log) => store.size(log),
      write: (log, offset, chunk) => store.write(log, offset, chunk),
    });
    const sink = { begin: (log: LogSource, end: Buffer) => store.beginArchive(log, end) };
    return { logs, artifacts: new Artifacts(sink, this.#clock) };
  }

  /** Takes note of a job's new status: an attempt that is over has its whole log. */
  status(job: CiJob, before: CiJobStatus | undefined, after: CiJobStatus): void {
    const { uid } = job.metadata;
    const attempt = before?.attempt ?? 1;
    if (after.completionTime !== undefined || (after.attempt ?? 1) > attempt) {
      this.#over.add(`${uid}/${attempt}`);
    }
    this.#store?.touch(uid);
  }

  /** Begins to serve, and to remove the logs of jobs that are gone. Call it when the jobs of the cluster are known. */
  async serve(cluster: JobsOfCluster, shells: ServedShells): Promise<void> {
    const store = this.#store;
    if (!store) return;
    this.#led.shells = shells;
    this.#led.logs = {
      job: (namespace, name) => cluster.job(`${namespace}/${name}`),
      size: (log) => store.size(log),
      newestAttempt: (uid) => store.newestAttempt(uid),
      isTruncated: (log) => store.isTruncated(log),
      isLive: (log) => {
        const job = jobOf(cluster, log);
        if (!job || isFinished(job) || this.#over.has(`${log.uid}/${log.attempt}`)) return false;
        return log.attempt >= (job.status?.attempt ?? 1);
      },
      read: (log, offset, length) => store.read(log, offset, length),
      changed: (uid) => store.changed(uid),
      artifacts: {
        size: (log) => store.archiveSize(log),
        attempt: (uid) => store.archivedAttempt(uid),
        read: (log, offset, length) => store.readArchive(log, offset, length),
      },
    };
    await this.#sweep(cluster, store);
  }

  async close(): Promise<void> {
    this.#cancelSweep();
    await this.#server?.close();
  }

  async #sweep(cluster: JobsOfCluster, store: LogStore): Promise<void> {
    const known = cluster.jobUids();
    if (known) {
      await store.sweep(known);
      for (const log of this.#over) if (!known.has(log.split('/', 1)[0] ?? '')) this.#over.delete(log);
    }
    this.#cancelSweep = this.#clock.after(sweepInterval, () => void this.#sweep(cluster, store));
  }
}

function jobOf(
  cluster: JobsOfCluster,
  { namespace, name, uid }: { namespace: string; name: string; uid: string },
): CiJob | undefined {
  const job = cluster.job(`${namespace}/${name}`);
  return job?.metadata.uid === uid ? job : undefined;
}
