import * as z from 'zod';
import { CiJobSpec } from './cijob.ts';
import { ciJobResource, incusHostResource, resourceSchema } from './crd.ts';
import { nearest } from './hints.ts';
import { IncusHostSpec } from './incushost.ts';
import { manifestText } from './manifest-text.ts';
import { apiVersion, group } from './meta.ts';
import { generatedName } from './object-name.ts';
import { formatPath, problemsOf, type LocatedProblem, type Problem } from './problem.ts';
import { childSchema, type Step, type StructuralSchema } from './structural.ts';
import { annotations, dnsLabel, labels, objectName, secretKey } from './text.ts';
import { readYaml, type YamlDocument } from './yaml.ts';

const string: StructuralSchema = { type: 'string' };

/** `metadata` as people write it. What only the API server may set is accepted, since `kubectl get -o yaml` prints it. */
const ManifestMeta = z
  .strictObject({
    name: objectName.optional(),
    generateName: z.string().optional(),
    namespace: dnsLabel.optional(),
    labels: labels.optional(),
    annotations: annotations.optional(),
    ...Object.fromEntries(
      [
        'creationTimestamp',
        'deletionGracePeriodSeconds',
        'deletionTimestamp',
        'finalizers',
        'generation',
        'managedFields',
        'ownerReferences',
        'resourceVersion',
        'selfLink',
        'uid',
      ].map((name) => [name, z.unknown().optional()]),
    ),
  })
  .refine(({ name, generateName = '' }) => name !== undefined || generateName !== '', {
    path: ['name'],
    message: 'is required, or generateName',
  })
  .refine(
    ({ name, generateName = '' }) => name !== undefined || generateName === '' || begins(generateName),
    {
      path: ['generateName'],
      message: 'must be the beginning of a name: lower case letters, digits, "-" and "."',
    },
  );

function begins(generateName: string): boolean {
  return objectName.safeParse(generatedName(generateName, 0)).success;
}

const metaSchema: StructuralSchema = {
  type: 'object',
  properties: Object.fromEntries(Object.keys(ManifestMeta.shape).map((name) => [name, string])),
};

const CiJobManifest = z.strictObject({
  apiVersion: z.literal(apiVersion),
  kind: z.literal('CiJob'),
  metadata: ManifestMeta,
  spec: CiJobSpec,
  status: z.unknown().optional(),
});

const IncusHostManifest = z.strictObject({
  apiVersion: z.literal(apiVersion),
  kind: z.literal('IncusHost'),
  metadata: ManifestMeta,
  spec: IncusHostSpec,
  status: z.unknown().optional(),
});

/** A core/v1 Secret, so that a file with a job and its Secret works without a cluster as it does with one. */
const SecretManifest = z.strictObject({
  apiVersion: z.literal('v1'),
  kind: z.literal('Secret'),
  metadata: ManifestMeta,
  type: z.string().optional(),
  immutable: z.boolean().optional(),
  data: z.record(secretKey, z.base64('must be base64')).optional(),
  stringData: z.record(secretKey, z.string()).optional(),
});

/** The `metadata` of a manifest: what its author decides. */
export interface ManifestMetadata {
  name: string;
  namespace?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
}

/** A validated object of a manifest file, with defaults filled in. */
export type Manifest =
  | { apiVersion: typeof apiVersion; kind: 'CiJob'; metadata: ManifestMetadata; spec: CiJobSpec }
  | { apiVersion: typeof apiVersion; kind: 'IncusHost'; metadata: ManifestMetadata; spec: IncusHostSpec }
  /** `data` is base64, with `stringData` merged in, as the API server returns it. */
  | { apiVersion: 'v1'; kind: 'Secret'; metadata: ManifestMetadata; data: Record<string, string> };

/** A {@link Problem} and where it stands in a file. */
export interface ManifestProblem extends Problem {
  file: string;
  /** Number of the document in the file, from 1. */
  document: number;
  /** Number of the line in the file, from 1, where it is known. */
  line?: number;
}

/** A manifest file that cannot be used. Its message lists every problem, one a line. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError';
  readonly problems: readonly ManifestProblem[];

  constructor(found: readonly ManifestProblem[]) {
    const problems = found.toSorted((a, b) => a.document - b.document || (a.line ?? 0) - (b.line ?? 0));
    super(problems.map(formatProblem).join('\n'));
    this.problems = problems;
  }
}

function formatProblem({ file, line, document, path, message }: ManifestProblem): string {
  const place = `${file}${line === undefined ? '' : `:${line}`}${document > 1 ? ` (document ${document})` : ''}`;
  return `${place}: ${path === '' ? '' : `${path} `}${message}`;
}

/** What a manifest file holds. */
export interface ManifestFile {
  manifests: Manifest[];
  /** Kinds of the objects that are not for us, one for each. */
  skipped: string[];
  /** Objects that were given a name. */
  named: { kind: string; generateName: string; name: string }[];
}

/**
 * The objects of a manifest file, as `kubectl create` takes them: YAML documents or JSON, and lists of objects. CiJobs,
 * IncusHosts and Secrets are read, objects of other kinds are passed over.
 *
 * @param fileName how messages call the file.
 * @param nameFor makes a name from a `metadata.generateName`.
 * @throws {ManifestError} with every problem of every document.
 */
export function parseManifests(
  bytes: Uint8Array,
  fileName: string,
  nameFor: (generateName: string) => string,
): ManifestFile {
  const content = manifestText(bytes);
  if ('fault' in content) {
    const { fault: message, ...place } = content;
    throw new ManifestError([{ file: fileName, document: 1, ...place, path: '', message }]);
  }
  const problems: ManifestProblem[] = [];
  const file: ManifestFile = { manifests: [], skipped: [], named: [] };
  readYaml(content.text).forEach((document, index) => {
    const faults = document.faults.length > 0 ? document.faults : read(document.value, file, nameFor);
    for (const { steps, path, message, line: known } of faults) {
      const line = known ?? document.lineOf(steps);
      const at = line === undefined ? {} : { line };
      problems.push({ file: fileName, document: index + 1, ...at, path, message });
    }
  });
  if (problems.length > 0) throw new ManifestError(problems);
  return file;
}

type Fault = YamlDocument['faults'][number];

const kinds: Record<string, { schema: z.ZodType; structure: StructuralSchema }> = {
  CiJob: { schema: CiJobManifest, structure: withMetadata(resourceSchema(ciJobResource)) },
  IncusHost: { schema: IncusHostManifest, structure: withMetadata(resourceSchema(incusHostResource)) },
  Secret: {
    schema: SecretManifest,
    structure: withMetadata({
      type: 'object',
      properties: { apiVersion: string, kind: string, type: string, data: string, stringData: string },
    }),
  },
};

function withMetadata(schema: StructuralSchema): StructuralSchema {
  return { ...schema, properties: { ...schema.properties, metadata: metaSchema } };
}

/** Reads an object, or those of a list, into `file`. Returns what is wrong. */
function read(value: unknown, file: ManifestFile, nameFor: (generateName: string) => string): Fault[] {
  if (!isMap(value)) return [fault([], 'must be a map with apiVersion, kind, metadata and spec')];
  const { kind: name, apiVersion: version } = value;
  if (name === undefined) return [fault(['kind'], 'is required; CiJob or IncusHost')];
  const items = itemsOf(value);
  if (items) return items.flatMap((item, index) => within(index, read(item, file, nameFor)));
  if (name === 'List') return [fault(['items'], 'is required, and must be a list')];
  const kind = typeof name === 'string' && Object.hasOwn(kinds, name) ? kinds[name] : undefined;
  if (kind && !(name === 'Secret' && isOfGroup(version))) return readOne(value, kind, file, nameFor);
  const wrong = kind ? undefined : wrongKind(name, version);
  if (wrong) return [wrong];
  if (typeof name === 'string') file.skipped.push(name);
  return [];
}

function readOne(
  value: object,
  { schema, structure }: { schema: z.ZodType; structure: StructuralSchema },
  file: ManifestFile,
  nameFor: (generateName: string) => string,
): Fault[] {
  const pruned = dropNulls(value, structure);
  const result = schema.safeParse(pruned);
  if (!result.success) return problemsOf(result.error, pruned, structure);
  const parsed = result.data as z.infer<AnyManifest>;
  const { name: given, generateName = '' } = parsed.metadata;
  const name = given ?? nameFor(generateName);
  if (given === undefined) file.named.push({ kind: parsed.kind, generateName, name });
  file.manifests.push(manifestOf(parsed, name));
  return [];
}

/** Why an object of a kind that is none of ours is a mistake; undefined where it is just not for us. */
function wrongKind(kind: unknown, version: unknown): Fault | undefined {
  const near = typeof kind === 'string' ? nearest(kind, Object.keys(kinds)) : undefined;
  const ours = typeof version === 'string' && version.startsWith(`${group}/`);
  if (typeof kind !== 'string' || near !== undefined || ours) {
    const meant = near === undefined ? '' : `; did you mean ${near}?`;
    return fault(['kind'], `must be CiJob or IncusHost, found ${JSON.stringify(kind)}${meant}`);
  }
  return typeof version === 'string' ? undefined : fault(['apiVersion'], 'is required');
}

/** Whether it is of an API group with a name, which a Secret is not. */
function isOfGroup(version: unknown): boolean {
  return typeof version === 'string' && version.includes('/');
}

/** The objects in a list, such as `kubectl get -o yaml` prints; undefined for anything else. */
function itemsOf(value: Record<string, unknown>): unknown[] | undefined {
  const { kind, apiVersion: version, items } = value;
  if (typeof kind !== 'string' || Object.hasOwn(kinds, kind)) return undefined;
  if (items === null) return [];
  if (!Array.isArray(items)) return undefined;
  // As in Kubernetes' own lists of one kind, whose objects need not repeat it.
  const known = { apiVersion: version, kind: kind.replace(/List$/, '') };
  return items.map((item: unknown) =>
    isMap(item) && item['kind'] === undefined && item['apiVersion'] === undefined
      ? { ...known, ...item }
      : item,
  );
}

/** The same faults, of an object in a list. */
function within(index: number, faults: readonly Fault[]): Fault[] {
  return faults.map(({ steps, message, ...rest }) => ({
    ...rest,
    ...fault(['items', index, ...steps], message),
  }));
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

type AnyManifest = typeof CiJobManifest | typeof IncusHostManifest | typeof SecretManifest;

function manifestOf(parsed: z.infer<AnyManifest>, name: string): Manifest {
  const { namespace, labels, annotations } = parsed.metadata;
  const metadata: ManifestMetadata = {
    name,
    ...(namespace !== undefined && { namespace }),
    ...(labels !== undefined && { labels }),
    ...(annotations !== undefined && { annotations }),
  };
  switch (parsed.kind) {
    case 'CiJob':
      return { apiVersion: parsed.apiVersion, kind: parsed.kind, metadata, spec: parsed.spec };
    case 'IncusHost':
      return { apiVersion: parsed.apiVersion, kind: parsed.kind, metadata, spec: parsed.spec };
    case 'Secret': {
      const plain = Object.entries(parsed.stringData ?? {}).map(([key, text]) => [
        key,
        Buffer.from(text).toString('base64'),
      ]);
      const data = { ...parsed.data, ...(Object.fromEntries(plain) as Record<string, string>) };
      return { apiVersion: parsed.apiVersion, kind: parsed.kind, metadata, data };
    }
  }
}

/**
 * Does as the API server, which takes a null for a field that is left out. Nulls in lists, and those of fields that do
 * not exist, stay and are refused.
 */
function dropNulls(value: unknown, schema: StructuralSchema | undefined): unknown {
  if (!schema || typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((element) => dropNulls(element, schema.items));
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, field]) => [key, field as unknown, childSchema(schema, key)] as const)
      .filter(([, field, at]) => field !== null || at === undefined)
      .map(([key, field, at]) => [key, dropNulls(field, at)]),
  );
}

function fault(steps: Step[], message: string): LocatedProblem {
  return { steps, path: formatPath(steps), message };
}
