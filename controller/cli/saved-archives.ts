import { join } from 'node:path';
import type { LogSource } from '../hosts/live-logs.ts';
import type { ArchiveSink } from '../hosts/artifacts.ts';
import { fileNameOf } from '../file-names.ts';
import { FileDraft } from '../logs/archive-file.ts';
import { keyOf } from '../reconcile/names.ts';

/**
 * Saves archives in a directory, each in place of what an earlier attempt or run has left there.
 *
 * @param jobs the keys of all jobs.
 * @param say takes a line about a file that is there, or cannot be written.
 */
export function savedArchives(
  directory: string,
  jobs: readonly string[],
  say: (line: string) => void,
): ArchiveSink {
  const room = { take: () => Promise.resolve(true), give: () => undefined };
  return {
    begin(source, end) {
      const path = join(directory, archiveNameOf(source, jobs));
      const onError = (error: unknown) =>
        say(`${path}: ${error instanceof Error ? error.message : String(error)}`);
      const keep = (bytes: number) => {
        say(`${keyOf(source)}: artifacts: saved as ${path}, ${bytes} bytes`);
        return Promise.resolve();
      };
      return FileDraft.begin(path, end, { ...room, keep, onError });
    },
  };
}

/** `NAME.tar.gz`, or `NAMESPACE_NAME.tar.gz` where jobs of two namespaces have that name. */
function archiveNameOf({ namespace, name }: LogSource, jobs: readonly string[]): string {
  const alone = jobs.filter((job) => job.endsWith(`/${name}`)).length <= 1;
  return fileNameOf(alone ? name : `${namespace}_${name}`, '.tar.gz');
}
