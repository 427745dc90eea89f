import { randomInt } from 'node:crypto';
import type { IncusHost } from '../api/incushost.ts';
import { parseManifests, type Manifest, type ManifestFile } from '../api/manifest.ts';
import { generatedName, nameEnds } from '../api/object-name.ts';
import { hostResource, localHost } from './local-host.ts';
import { readManifestFiles, type ManifestBytes } from './manifest-files.ts';
import { UsageError } from './usage-error.ts';

export type JobManifest = Extract<Manifest, { kind: 'CiJob' }>;

/** Everything that the files given to `cijob run` and `cijob plan` hold. */
export interface Input {
  jobs: JobManifest[];
  hosts: IncusHost[];
  secrets: Extract<Manifest, { kind: 'Secret' }>[];
  /** What a person should know of the files: objects that were passed over, names that were made. */
  notes: string[];
}

/** Ends of generated names, one after the other: which of the {@link nameEnds} each is. */
export type NameEnds = () => number;

/** Kinds that a note names. */
const namedKinds = 10;

const randomEnds: NameEnds = () => randomInt(nameEnds);

/**
 * Reads manifest files as `kubectl -f` does. Without an IncusHost among them, the local Incus is the host.
 *
 * @throws {UsageError} or ManifestError when they cannot be used.
 */
export async function readInput(paths: readonly string[], ends: NameEnds = randomEnds): Promise<Input> {
  const files = (await readManifestFiles(paths)).map((file) => parsed(file, ends));
  const manifests = files.flatMap((file) => file.manifests);
  const notes = files.flatMap((file) => file.notes);
  const jobs = manifests.filter((manifest) => manifest.kind === 'CiJob');
  if (jobs.length === 0) {
    throw new UsageError([`${paths.join(', ')}: there is no CiJob in it`, ...notes].join('\n'));
  }
  const names = jobs.map((job) => `${job.metadata.namespace ?? 'default'}/${job.metadata.name}`);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new UsageError(`${paths.join(', ')}: CiJob ${twice} is there twice`);
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
    notes,
  };
}

function parsed({ name, bytes }: ManifestBytes, ends: NameEnds): { manifests: Manifest[]; notes: string[] } {
  const file = parseManifests(bytes, name, (generateName) => generatedName(generateName, ends()));
  return { manifests: file.manifests, notes: notesOf(file).map((note) => `${name}: ${note}`) };
}

function notesOf({ manifests, skipped, named }: ManifestFile): string[] {
  const kinds = Map.groupBy(skipped, (kind) => kind);
  const counts = [...kinds]
    .slice(0, namedKinds)
    .map(([kind, { length }]) => `${length} ${kind.slice(0, 63)}`);
  if (kinds.size > namedKinds) counts.push('others');
  return [
    ...named.map((one) => `${one.kind} ${one.generateName} is named ${one.name}`),
    ...(counts.length > 0
      ? [`skipped ${counts.join(', ')}: only CiJob, IncusHost and Secret are read here`]
      : []),
    ...(manifests.length + skipped.length === 0 ? ['holds no object'] : []),
  ];
}
