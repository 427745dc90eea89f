import type { CiJob } from '../api/cijob.ts';
import { group } from '../api/meta.ts';
import { sleep, type Clock } from '../clock.ts';
import { sendArtifacts, type ServedArtifacts } from './artifact-answer.ts';
import { pieceBytes, type Delivery } from './delivery.ts';
import type { LogRequest } from './log-request.ts';
import { Refusal } from './refusal.ts';

export interface LogName {
  namespace: string;
  name: string;
  uid: string;
  attempt: number;
}

/** The logs there are. Only the leader has them, as only it writes them. */
export interface ServedLogs {
  job(namespace: string, name: string): CiJob | undefined;
  /** Bytes of a log; undefined when there is none. */
  size(log: LogName): number | undefined;
  /** The newest attempt that has a log. */
  newestAttempt(uid: string): number | undefined;
  isTruncated(log: LogName): boolean;
  /** Whether the log may still grow. */
  isLive(log: LogName): boolean;
  read(log: LogName, offset: number, length: number): Promise<Buffer>;
  /** Resolves when a look at the CiJob's log is worth while again. */
  changed(uid: string): Promise<undefined>;
  artifacts: ServedArtifacts;
}

/** The longest time between two looks at a log that is followed. */
const lookInterval = 1_000;

/**
 * Sends the log, or the archive of artifacts, from the offset on; of a log that is followed also what is added to it
 * until it ends.
 *
 * @param onChosen called with what is sent, before that.
 * @returns whether the reader took it to its end.
 * @throws Refusal when there is none, or the reader may not read it any more.
 */
export async function answer(
  logs: ServedLogs,
  wanted: LogRequest,
  delivery: Delivery,
  clock: Clock,
  onChosen: (log: LogName) => void,
): Promise<boolean> {
  const job = jobOf(logs, wanted);
  if (wanted.subresource === 'log')
    return sendLog(logs, choose(logs, wanted, job), wanted, delivery, clock, onChosen);
  const { namespace, name } = wanted;
  const isLive = (attempt: number) => logs.isLive({ namespace, name, uid: job.metadata.uid, attempt });
  return sendArtifacts(logs.artifacts, job, wanted, isLive, delivery, onChosen);
}

async function sendLog(
  logs: ServedLogs,
  log: LogName,
  { offset: from, follow }: LogRequest,
  delivery: Delivery,
  clock: Clock,
  onChosen: (log: LogName) => void,
): Promise<boolean> {
  let offset = from;
  const size = logs.size(log) ?? 0;
  if (offset > size && !logs.isLive(log)) {
    throw new Refusal(416, 'RequestedRangeNotSatisfiable', `the log has ${size} bytes, not ${offset}`);
  }
  onChosen(log);
  delivery.begin({
    'Content-Type': 'text/plain; charset=utf-8',
    'X-Cijob-Uid': log.uid,
    'X-Cijob-Attempt': log.attempt,
    'X-Cijob-Log-Truncated': String(logs.isTruncated(log)),
  });
  for (;;) {
    const changed = logs.changed(log.uid);
    // Asked before the last bytes are sent: whatever was written before it ended is then among them.
    const live = logs.isLive(log);
    for (let end = logs.size(log) ?? 0; offset < end; end = logs.size(log) ?? 0) {
      const piece = await logs.read(log, offset, Math.min(pieceBytes, end - offset));
      if (piece.length === 0) throw new Error('the log was removed while it was read');
      offset += piece.length;
      if (!(await delivery.send(piece))) return false;
    }
    if (!follow || !live) return delivery.end();
    await Promise.race([changed, sleep(clock, lookInterval), delivery.closed]);
    if (!delivery.goesOn()) return false;
  }
}

/** Which log is meant. @throws Refusal when there is none, and never will be. */
function choose(logs: ServedLogs, { namespace, name, attempt, follow }: LogRequest, job: CiJob): LogName {
  const of = { namespace, name, uid: job.metadata.uid };
  const { status } = job;
  const current = { ...of, attempt: attempt ?? status?.attempt ?? 1 };
  if (logs.size(current) !== undefined) return current;
  if (logs.isLive(current)) {
    if (follow) return current;
    const phase = status?.phase ?? 'Pending';
    throw new Refusal(404, 'NotFound', `cijobs.${group} "${name}" has no log yet: it is ${phase}`);
  }
  const newest = attempt === undefined ? logs.newestAttempt(of.uid) : undefined;
  if (newest !== undefined) return { ...of, attempt: newest };
  if (status?.log || attempt !== undefined) {
    throw new Refusal(410, 'Gone', `the log of cijobs.${group} "${name}" is not kept any more`);
  }
  throw new Refusal(404, 'NotFound', `cijobs.${group} "${name}" ended without a log`);
}

/** The CiJob that is meant. @throws Refusal when there is none, or it was replaced. */
function jobOf(logs: ServedLogs, { namespace, name, uid }: LogRequest): CiJob {
  const job = logs.job(namespace, name);
  if (!job) throw new Refusal(404, 'NotFound', `cijobs.${group} "${name}" not found`);
  if (uid !== undefined && uid !== job.metadata.uid) {
    throw new Refusal(410, 'Gone', `cijobs.${group} "${name}" was replaced: its uid is not ${uid} any more`);
  }
  return job;
}
