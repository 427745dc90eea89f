import { rmSync } from 'node:fs';
import { access as probe, open, rename, unlink } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { CiJob } from '../api/cijob.ts';
import { draftPathOf, fileNameOf } from '../file-names.ts';
import { printableLine } from '../printable.ts';
import { getJob, Unable, withCluster, type ClusterFlags } from './cluster.ts';
import { UsageError } from './usage-error.ts';
import { Absence, openLog, pause, type LogQuery } from './log-stream.ts';
import { note, out } from './output.ts';
import { leave, programEnd } from './program-end.ts';
import { serverAccess, type ServerAccess, type ServerFlags } from './server-access.ts';
import { ServerRefused } from './server-refused.ts';

export interface ArtifactsOptions extends ClusterFlags, ServerFlags {
  /** File to write; `-` is standard output. */
  output?: string;
  force?: boolean;
  attempt?: number;
}

/** `cijob artifacts NAME`: the archive of what a job left, from the controller's log server. */
export async function artifacts(name: string, options: ArtifactsOptions): Promise<number> {
  const { output = fileNameOf(name, '.tar.gz'), force = false, attempt } = options;
  if (output !== '-' && !force) await mustNotExist(output);
  return withCluster(options, async (cluster) => {
    const job = await getJob(cluster, name);
    const access = await serverAccess(cluster.config, options);
    if (typeof access === 'string') throw new Unable(access);
    const query = {
      ...{ namespace: cluster.namespace, name, uid: job.metadata.uid },
      ...{ follow: false, offset: 0, attempt },
    };
    if (output === '-') {
      await download(access, query, out);
    } else {
      await toFile(output, force, (take) => download(access, query, take));
    }
    tellOf(job, output);
    return 0;
  });
}

type Take = (chunk: Buffer) => Promise<void>;

/** Passes the archive on, going on where it was when the connection breaks. */
async function download(access: ServerAccess, query: LogQuery, take: Take): Promise<void> {
  const absence = new Absence();
  let begun = false;
  for (;;) {
    try {
      const archive = await openLog(access, query, 'artifacts');
      begun = true;
      query.attempt = archive.attempt;
      for await (const chunk of absence.during(archive.body)) {
        await take(chunk);
        query.offset += chunk.length;
      }
      return;
    } catch (error) {
      if (error instanceof NotTaken) throw error.cause;
      const passes = error instanceof ServerRefused ? error.passes : begun;
      if (!passes || absence.isTooLong) {
        const why = error instanceof Error ? error.message : String(error);
        throw new Unable(error instanceof ServerRefused ? why : `${access.url.origin}: ${why}`);
      }
      await delay(pause);
    }
  }
}

/** What was downloaded cannot be written: that is no reason to ask for it again. */
class NotTaken extends Error {}

/** Writes a file under another name and shows it when it is whole. */
async function toFile(path: string, force: boolean, fill: (take: Take) => Promise<void>): Promise<void> {
  const draft = draftPathOf(path, '.part');
  const file = await open(draft, 'wx');
  const giveBack = programEnd.takeOver((cause) => {
    // It may have its last name already.
    rmSync(draft, { force: true });
    leave(cause);
  });
  try {
    await fill(async (chunk) => {
      await file.appendFile(chunk).catch((cause: unknown) => {
        throw new NotTaken(draft, { cause });
      });
    });
    await file.close();
    if (!force) await mustNotExist(path);
    await rename(draft, path);
  } finally {
    giveBack();
    await file.close().catch(() => undefined);
    await unlink(draft).catch(() => undefined);
  }
}

async function mustNotExist(path: string): Promise<void> {
  const exists = await probe(path).then(
    () => true,
    () => false,
  );
  if (exists) throw new UsageError(`${path} exists already; --force overwrites it`);
}

/** Says on standard error what is in the archive and what is not, as far as the status tells. */
function tellOf({ status }: CiJob, output: string): void {
  const { artifacts: kept } = status ?? {};
  if (!kept) return;
  const { files, bytes, notes = [] } = kept;
  const where = output === '-' ? '' : `${output}: `;
  note(`cijob: ${where}${files} files in ${bytes} bytes`);
  for (const { message } of notes) note(`cijob: ${printableLine(message)}`);
}
