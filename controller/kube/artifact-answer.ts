import type { CiJob } from '../api/cijob.ts';
import { group } from '../api/meta.ts';
import { fileNameOf } from '../file-names.ts';
import { pieceBytes, type Delivery } from './delivery.ts';
import type { LogRequest } from './log-request.ts';
import { Refusal } from './refusal.ts';

/** Names the archive of one attempt. */
interface ArchiveName {
  namespace: string;
  name: string;
  uid: string;
  attempt: number;
}

/** The archives there are. */
export interface ServedArtifacts {
  /** Bytes of an archive; undefined when there is none. */
  size(archive: ArchiveName): number | undefined;
  /** The attempt of which there is an archive. */
  attempt(uid: string): number | undefined;
  read(archive: ArchiveName, offset: number, length: number): Promise<Buffer>;
}

/**
 * Sends the archive of a job's artifacts from the offset on.
 *
 * @param isLive whether an attempt may still leave artifacts.
 * @param onChosen called with the archive's name before anything is sent.
 * @returns whether the reader took it to its end.
 * @throws Refusal when there is none, or the reader may not read it any more.
 */
export async function sendArtifacts(
  archives: ServedArtifacts,
  job: CiJob,
  wanted: LogRequest,
  isLive: (attempt: number) => boolean,
  delivery: Delivery,
  onChosen: (archive: ArchiveName) => void,
): Promise<boolean> {
  const archive = choose(archives, job, wanted, isLive);
  const size = archives.size(archive) ?? 0;
  let { offset } = wanted;
  if (offset > size) {
    throw new Refusal(
      416,
      'RequestedRangeNotSatisfiable',
      `the archive has ${size} bytes, fewer than ${offset}`,
    );
  }
  onChosen(archive);
  delivery.begin({
    'Content-Type': 'application/gzip',
    'Content-Length': size - offset,
    'Content-Disposition': `attachment; filename="${fileNameOf(wanted.name, '.tar.gz')}"`,
    'X-Cijob-Uid': archive.uid,
    'X-Cijob-Attempt': archive.attempt,
  });
  while (offset < size) {
    const piece = await archives.read(archive, offset, Math.min(pieceBytes, size - offset));
    if (piece.length === 0) throw new Error('the archive was removed while it was read');
    offset += piece.length;
    if (!(await delivery.send(piece))) return false;
  }
  return delivery.end();
}

function choose(
  archives: ServedArtifacts,
  { metadata: { uid }, spec, status }: CiJob,
  { namespace, name, attempt }: LogRequest,
  isLive: (attempt: number) => boolean,
): ArchiveName {
  const what = `cijobs.${group} "${name}"`;
  const current = status?.attempt ?? 1;
  if ((attempt ?? current) === current && isLive(current)) {
    const phase = status?.phase ?? 'Pending';
    throw new Refusal(404, 'NotFound', `${what} has no artifacts yet: it is ${phase}`);
  }
  const archived = attempt ?? archives.attempt(uid);
  const archive = { namespace, name, uid, attempt: archived ?? 0 };
  if (archives.size(archive) !== undefined) return archive;
  const { bytes = 0, notes = [] } = status?.artifacts ?? {};
  if (bytes > 0 || attempt !== undefined) {
    throw new Refusal(410, 'Gone', `the artifacts of ${what} are not kept any more`);
  }
  const why =
    spec.artifacts.length === 0
      ? 'its spec.artifacts names none'
      : notes.map(({ message }) => message).join('; ') || 'none could be kept';
  throw new Refusal(404, 'NotFound', `${what} has no artifacts: ${why}`);
}
