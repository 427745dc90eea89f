import { hostname } from 'node:os';
import { randomUUID } from 'node:crypto';
import { apiVersion } from '../api/meta.ts';
import { systemClock } from '../clock.ts';
import { hostStatus } from '../hosts/host-status.ts';
import { HostPool } from '../hosts/pool.ts';
import { KubeClient } from '../kube/client.ts';
import { ClusterController } from '../kube/controller.ts';
import { EventRecorder } from '../kube/event-recorder.ts';
import { happenings } from '../kube/job-events.ts';
import { loadKubeConfig, ownNamespace } from '../kube/kube-config.ts';
import { LeaderElection } from '../kube/lease.ts';
import { namespaces } from '../kube/resources.ts';
import { readSecret } from '../kube/secrets.ts';
import { Transport } from '../kube/transport.ts';
import { Engine } from '../reconcile/engine.ts';
import { OrphanSweep } from '../reconcile/orphan-sweep.ts';
import { defaultPatience } from '../reconcile/observed.ts';
import { SshError } from '../ssh/errors.ts';
import { expose } from '../telemetry/exposition.ts';
import { serveTelemetry } from '../telemetry/http.ts';
import { createLogger, type LogLevel } from '../telemetry/log.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { startTraces } from '../telemetry/traces.ts';
import { programVersion } from '../version.ts';
import { JobTraces } from './job-traces.ts';
import { LogService, type LogOptions } from './log-service.ts';
import { hostMeasures, loopMeasures, metricSources } from './metric-sources.ts';
import { hostLog, logCommand, measure } from './observe.ts';
import { Overhead } from './overhead.ts';
import { leave, programEnd } from './program-end.ts';
import { servedShells } from './shell-service.ts';

export interface ControllerOptions extends LogOptions {
  kubeconfig?: string;
  context?: string;
  namespace?: string;
  metricsAddress: string;
  concurrency: number;
  hostGraceSeconds: number;
  orphanGraceSeconds: number;
  /** Lanes that the metrics tell apart. */
  lane: string[];
  logLevel: LogLevel;
  logFormat: 'json' | 'text';
}

const name = 'cijob-controller';

/** `cijob controller`: reconciles the CiJobs of a cluster until it is told to stop or loses its lease. */
export async function controller(options: ControllerOptions): Promise<number> {
  const clock = systemClock;
  const log = createLogger({ level: options.logLevel, format: options.logFormat, clock });
  const metrics = createMetrics({ version: programVersion, lanes: options.lane });
  const config = loadKubeConfig({
    ...(options.kubeconfig === undefined ? {} : { file: options.kubeconfig }),
    ...(options.context === undefined ? {} : { context: options.context }),
  });
  const namespace = options.namespace ?? ownNamespace(config);
  const transport = new Transport({
    config,
    clock,
    userAgent: `${name}/${programVersion}`,
    onRequest: (method, code) => metrics.apiRequests.increment({ method, code }),
  });
  const client = new KubeClient(transport);
  const stopping = new AbortController();
  let lost: string | undefined;
  let told = false;
  programEnd.takeOver((cause) => {
    // Nothing of a controller goes to standard output.
    if (cause.kind === 'output') return;
    if (told) leave(cause);
    told = true;
    log.info({ signal: cause.signal }, 'stopping; a second signal ends it at once');
    stopping.abort(new Error(cause.signal));
  });
  const election = new LeaderElection({
    client,
    clock,
    lease: { namespace, name },
    identity: `${hostname()}_${randomUUID()}`,
    onLost: (reason) => {
      lost = reason;
      stopping.abort(new Error(reason));
    },
    onError: (err) => log.warn({ err }, 'leader election'),
  });
  const server = await serveTelemetry({
    address: options.metricsAddress,
    clock,
    alive: () => undefined,
    ready: () => (stopping.signal.aborted ? 'shutting down' : undefined),
    metrics: (accept) => expose(metrics.registry, accept),
  });
  const traces = await startTraces({
    clock,
    version: programVersion,
    onDropped: (spans) => metrics.spansDropped.increment({}, spans),
    onTrouble: (why) => log.warn(why),
  });
  const logs = await LogService.start(options, client, clock, log);
  metrics.leading.set({ name }, 0);
  log.info({ version: programVersion, namespace, port: server.port }, 'waiting for the lease');
  try {
    await election.acquire(stopping.signal);
    metrics.leading.set({ name }, 1);
    // Unique to this installation, and the same after every restart: its instances carry it.
    const { uid } = (await client.get(namespaces, { name: namespace })).metadata;
    const controllerId = `${namespace}-${uid.slice(0, 8)}`;
    log.info({ controllerId }, 'leading');
    await lead(controllerId);
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
  } finally {
    metrics.leading.set({ name }, 0);
    await election.release();
    await logs?.close();
    await traces?.close();
    await server.close();
    transport.close();
  }
  if (lost === undefined) return 0;
  log.error({ reason: lost }, 'the lease was lost');
  return 1;

  async function lead(controllerId: string): Promise<void> {
    const recorder = new EventRecorder({
      client,
      clock,
      controller: `ci.pikaci.dev/${name}`,
      instance: hostname(),
      onDropped: () => metrics.eventsDropped.increment({}),
      onError: (err) => log.debug({ err }, 'an Event was not written'),
    });
    const tellOfHost = hostLog(log);
    const kept = await logs?.lead(() => cluster);
    const pool: HostPool = new HostPool({
      controllerId,
      clock,
      ...kept,
      readKey: async ({ name: secret, key }) => {
        const value = await readSecret(client, namespace, secret, key);
        if (value === undefined) {
          throw new SshError(
            'KeyUnusable',
            `Secret ${namespace}/${secret} is not there, or has no key ${key}`,
          );
        }
        return value.toString('utf8');
      },
      wake: (key) => cluster.engine.wake(key),
      namespaceLabels: (one) => cluster.namespaceLabels(one),
      events: {
        changed(host, instance) {
          const { engine } = cluster;
          if (instance === undefined) {
            tellOfHost(host, pool.state(host));
            cluster.hostChanged(host);
          }
          engine.hostChanged(
            host,
            instance,
            instance === undefined ? undefined : pool.ownerOf(host, instance),
          );
        },
        drift(host, instance, kind) {
          metrics.drift.increment({ host, kind });
          const job = cluster.job(pool.ownerOf(host, instance) ?? '');
          const about = { host, instance, kind, ...(job && jobTraces?.fields(job)) };
          log.warn(about, 'instance changed without the controller');
          if (!job) return;
          const note = `instance ${instance} on host ${host} changed without the controller: ${kind}`;
          recorder.record(
            { apiVersion, kind: 'CiJob', ...job.metadata },
            { type: 'Warning', reason: `Instance${kind}`, action: 'Observe', note },
          );
        },
        ...hostMeasures(metrics),
        request: (host, method, path) => log.trace({ host, method, path }, 'request'),
      },
    });
    const measures = { metrics, lanes: new Set(options.lane), overhead: new Overhead() };
    const jobTraces =
      traces && new JobTraces({ traces, addressOf: (host) => pool.get(host)?.spec.connection.ssh?.address });
    const cluster: ClusterController = new ClusterController({
      client,
      clock,
      hosts: {
        put: (resource) => pool.put(resource),
        remove: (host) => pool.remove(host),
        status: (resource) => {
          const host = pool.get(resource.metadata.name);
          return (
            host &&
            hostStatus(
              resource,
              host.state,
              pool.used(host.name),
              host.observedAt,
              clock.now(),
              pool.refusalOf(host.name),
            )
          );
        },
      },
      onJobWrite: () => undefined,
      onError: (what, err) => log.warn({ err }, what),
      engine: (store) =>
        new Engine({
          store,
          hosts: pool,
          clock,
          concurrency: options.concurrency,
          controllerId,
          ownNamespace: namespace,
          patience: {
            ...defaultPatience,
            hostGrace: options.hostGraceSeconds * 1000,
            cancelGrace: options.hostGraceSeconds * 1000,
          },
          namespaceLabels: (one) => cluster.namespaceLabels(one),
          onError(key, err, reconcileID) {
            const job = cluster.job(key);
            const trace = job && jobTraces?.fields(job);
            log.warn({ job: key, reconcileID, ...trace, err }, 'reconcile failed; it is tried again');
          },
          ...loopMeasures(metrics),
          observer: {
            status(change) {
              jobTraces?.status(change);
              const { job, before, after, reconcileID } = change;
              measure(measures, job, before, after, jobTraces?.exemplar(job));
              logs?.status(job, before, after);
              const { metadata } = job;
              for (const happening of happenings(before, after)) {
                recorder.record({ apiVersion, kind: 'CiJob', ...metadata }, happening);
              }
              if (before?.phase !== after.phase) {
                const key = `${metadata.namespace ?? ''}/${metadata.name}`;
                const about = { job: key, reconcileID, host: after.host ?? '', ...jobTraces?.fields(job) };
                log.info(about, after.phase ?? '');
              }
            },
            command(end) {
              measures.overhead.command(end.command, clock.now(), end.milliseconds);
              const trace = jobTraces?.command(end, clock.now());
              logCommand(log, pool.get(end.host)?.spec.project ?? '', end, trace);
            },
          },
        }),
    });
    Object.assign(
      metrics.sources,
      metricSources({ clock, pool, jobs: () => cluster.jobs(), queue: () => cluster.engine.queue }),
    );
    const sweep = new OrphanSweep({
      clock,
      hosts: pool,
      // Their finalizer was taken off by hand, or the cluster was restored from a backup.
      orphans() {
        const jobs = cluster.jobUids();
        return jobs && pool.ours().filter(({ instance }) => !jobs.has(instance.labels['uid'] ?? ''));
      },
      grace: options.orphanGraceSeconds * 1000,
      onRemoved(host, instance) {
        metrics.orphansRemoved.increment({ host });
        log.warn(
          { host, instance: instance.name, uid: instance.labels['uid'] },
          'removed an orphan: its CiJob is gone',
        );
        const resource = cluster.host(host);
        if (!resource) return;
        const note = `instance ${instance.name} was removed: its CiJob is gone`;
        recorder.record(
          { apiVersion, kind: 'IncusHost', ...resource.metadata },
          { type: 'Warning', reason: 'OrphanRemoved', action: 'CleanUp', note },
        );
      },
      onError: (host, instance, why) =>
        log.warn({ host, instance: instance.name, why }, 'an orphan could not be removed'),
    });
    await cluster.start();
    sweep.start();
    await logs?.serve(
      cluster,
      servedShells({
        job: (key) => cluster.job(key),
        host: (host) => pool.get(host),
        controllerId,
        onOpened: (job, happening) =>
          recorder.record({ apiVersion, kind: 'CiJob', ...job.metadata }, happening),
      }),
    );
    log.info({ jobs: cluster.jobs().length, hosts: pool.all().length }, 'reconciling');
    await new Promise<void>((resolve) => {
      if (stopping.signal.aborted) resolve();
      else stopping.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    sweep.stop();
    // A process that has lost its lease may not write any more: another one does.
    if (lost === undefined) await cluster.stop();
    await pool.close();
    await recorder.close(1000);
  }
}
