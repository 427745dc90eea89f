import { setTimeout as delay } from 'node:timers/promises';
import type { CiJob } from '../api/cijob.ts';
import { isFinished } from '../reconcile/step.ts';
import { printable } from '../printable.ts';
import { getJob, Unable, withCluster, type Cluster, type ClusterFlags } from './cluster.ts';
import { Absence, openLog, pause, type LogQuery } from './log-stream.ts';
import { note, out } from './output.ts';
import { serverAccess, type ServerAccess, type ServerFlags } from './server-access.ts';
import { ServerRefused } from './server-refused.ts';

export interface LogsOptions extends ClusterFlags, ServerFlags {
  follow?: boolean;
  offset: number;
  attempt?: number;
}

/** `cijob logs NAME`: the log of a job, from the controller's log server or, failing that, its end from the status. */
export async function logs(name: string, options: LogsOptions): Promise<number> {
  return withCluster(options, async (cluster) => {
    const job = await getJob(cluster, name);
    const access = await serverAccess(cluster.config, options);
    if (typeof access === 'string') return fallBack(job, access);
    try {
      await stream(cluster, job, access, options);
      return 0;
    } catch (error) {
      if (error instanceof ServerRefused && error.byController && (error.code === 401 || error.code === 403))
        throw new Unable(error.message);
      if (error instanceof Unable) throw error;
      const why = `${access.url.origin}: ${error instanceof Error ? error.message : String(error)}`;
      if (error instanceof Interrupted) throw new Unable(why);
      return fallBack(job, why);
    }
  });
}

/** The log broke off after some of it was printed: its end once more would only confuse. */
class Interrupted extends Error {}

/** Prints the log, going on where it was when the connection breaks, and with the next attempt when one is lost. */
async function stream(
  cluster: Cluster,
  job: CiJob,
  access: ServerAccess,
  { follow = false, offset, attempt }: LogsOptions,
): Promise<void> {
  const { namespace } = cluster;
  const { name, uid } = job.metadata;
  const query: LogQuery = { namespace, name, uid, follow, offset, attempt };
  const absence = new Absence();
  let begun = false;
  for (;;) {
    try {
      const log = await openLog(access, query);
      begun = true;
      query.attempt = log.attempt;
      for await (const chunk of absence.during(log.body)) {
        query.offset += chunk.length;
        await out(chunk);
      }
      if (log.truncated) note('cijob: the log was cut short here: it reached a limit of the log store');
      if (!follow || attempt !== undefined) return;
      const now = await getJob(cluster, name);
      const current = now.status?.attempt ?? 1;
      if (now.metadata.uid !== uid || (isFinished(now) && current <= log.attempt)) return;
      if (current > log.attempt) {
        note(`cijob: attempt ${log.attempt} was lost to the infrastructure; attempt ${current} follows`);
        query.attempt = current;
        query.offset = 0;
      } else {
        await delay(pause);
      }
    } catch (error) {
      // The job was deleted meanwhile, and its log with it.
      if (error instanceof Unable) throw error;
      // Between two controllers, the Service in front of them has nobody behind it.
      const absent = begun && error instanceof ServerRefused && error.code >= 500;
      const final = error instanceof ServerRefused && !error.passes && !absent;
      if (final && begun && isOver(await getJob(cluster, name), query.attempt)) return;
      if (final || (!begun && !(error instanceof ServerRefused)) || absence.isTooLong) {
        throw begun ? new Interrupted((error as Error).message, { cause: error }) : error;
      }
      await delay(pause);
    }
  }
}

/** Whether an attempt that wrote no log is all there is. */
function isOver(job: CiJob, attempt: number | undefined): boolean {
  return isFinished(job) && (job.status?.attempt ?? 1) === attempt && job.status?.log === undefined;
}

/** The end of a failed job's log is in its status, for those who cannot reach the rest. */
function fallBack({ metadata, status }: CiJob, why: string): number {
  const excerpt = status?.failure?.excerpt;
  if (excerpt === undefined) throw new Unable(`the log of ${metadata.name} cannot be read: ${why}`);
  note(`cijob: ${why}; this is the end of the log, as the status keeps it:`);
  void out(process.stdout.isTTY ? printable(excerpt) : excerpt);
  if (!excerpt.endsWith('\n')) void out('\n');
  return 0;
}
