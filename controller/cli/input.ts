import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import type { IncusHost } from '../api/incushost.ts';
import { parseManifests, type Manifest } from '../api/manifest.ts';
import { hostResource, localHost } from './local-host.ts';

/** What a person must set right. Its message is all they see. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export type JobManifest = Extract<Manifest, { kind: 'CiJob' }>;

/** Everything that the files given to `cijob run` and `cijob plan` hold. */
export interface Input {
  jobs: JobManifest[];
  hosts: IncusHost[];
  secrets: Extract<Manifest, { kind: 'Secret' }>[];
}

/** Reads manifest files; `-` is standard input. Without an IncusHost among them, the local Incus is the host. */
export async function readInput(files: readonly string[]): Promise<Input> {
  const manifests: Manifest[] = [];
  for (const file of files)
    manifests.push(...parseManifests(await read(file), file === '-' ? 'stdin' : file));
  const jobs = manifests.filter((manifest) => manifest.kind === 'CiJob');
  if (jobs.length === 0) throw new UsageError(`${files.join(', ')}: there is no CiJob in it`);
  const names = jobs.map((job) => `${job.metadata.namespace ?? 'default'}/${job.metadata.name}`);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new UsageError(`${files.join(', ')}: CiJob ${twice} is there twice`);
  const suspended = jobs.find((job) => job.spec.suspend);
  if (suspended) {
    throw new UsageError(
      `CiJob ${suspended.metadata.name}: spec.suspend is true, and nothing here could resume it`,
    );
  }
  const hosts = manifests
    .filter((manifest) => manifest.kind === 'IncusHost')
    .map(({ metadata, spec }) => hostResource(metadata.name, spec, metadata.labels));
  return {
    jobs,
    hosts: hosts.length > 0 ? hosts : [localHost()],
    secrets: manifests.filter((manifest) => manifest.kind === 'Secret'),
  };
}

async function read(file: string): Promise<string> {
  if (file === '-') return text(process.stdin);
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${(error as Error).message}`);
  }
}
