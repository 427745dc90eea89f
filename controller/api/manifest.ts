import * as z from 'zod';
import { CiJobSpec } from './cijob.ts';
import { ciJobResource, incusHostResource, resourceSchema } from './crd.ts';
import { nearest } from './hints.ts';
import { IncusHostSpec } from './incushost.ts';
import { apiVersion } from './meta.ts';
import { formatPath, problemsOf, type LocatedProblem, type Problem } from './problem.ts';
import { childSchema, type Step, type StructuralSchema } from './structural.ts';
import { annotations, dnsLabel, labels, objectName, secretKey } from './text.ts';
import { readYaml, type YamlDocument } from './yaml.ts';

const string: StructuralSchema = { type: 'string' };

/** `metadata` as people write it. What only the API server may set is accepted, since `kubectl get -o yaml` prints it. */
const ManifestMeta = z.strictObject({
  name: objectName,
  namespace: dnsLabel.optional(),
  labels: labels.optional(),
  annotations: annotations.optional(),
  ...Object.fromEntries(
    [
      'creationTimestamp',
      'deletionGracePeriodSeconds',
      'deletionTimestamp',
      'finalizers',
      'generateName',
      'generation',
      'managedFields',
      'ownerReferences',
      'resourceVersion',
      'selfLink',
      'uid',
    ].map((name) => [name, z.unknown().optional()]),
  ),
});
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

/**
 * The objects of a manifest file: YAML documents or JSON, with CiJobs, IncusHosts and Secrets.
 *
 * @param fileName how messages call the file.
 * @throws {ManifestError} with every problem of every document.
 */
export function parseManifests(text: string, fileName: string): Manifest[] {
  const documents = readYaml(text);
  const problems: ManifestProblem[] = [];
  const manifests: Manifest[] = [];
  documents.forEach((document, index) => {
    const result = document.faults.length > 0 ? document.faults : parseOne(document.value);
    if (!Array.isArray(result)) {
      manifests.push(result);
      return;
    }
    for (const { steps, path, message, line: known } of result) {
      const line = known ?? document.lineOf(steps);
      problems.push({
        file: fileName,
        document: index + 1,
        ...(line !== undefined && { line }),
        path,
        message,
      });
    }
  });
  if (problems.length === 0 && manifests.length === 0) {
    problems.push({ file: fileName, document: 1, path: '', message: 'holds no object' });
  }
  if (problems.length > 0) throw new ManifestError(problems);
  return manifests;
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

function parseOne(value: unknown): Manifest | Fault[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return [fault([], 'must be a map with apiVersion, kind, metadata and spec')];
  }
  const { kind: name } = value as { kind?: unknown };
  if (name === undefined) return [fault(['kind'], 'is required; CiJob or IncusHost')];
  const kind = typeof name === 'string' && Object.hasOwn(kinds, name) ? kinds[name] : undefined;
  if (!kind) {
    const near = typeof name === 'string' ? nearest(name, Object.keys(kinds)) : undefined;
    const meant = near === undefined ? '' : `; did you mean ${near}?`;
    return [fault(['kind'], `must be CiJob or IncusHost, found ${JSON.stringify(name)}${meant}`)];
  }
  const pruned = dropNulls(value, kind.structure);
  const result = kind.schema.safeParse(pruned);
  if (!result.success) return problemsOf(result.error, pruned, kind.structure);
  return manifestOf(result.data as z.infer<AnyManifest>);
}

type AnyManifest = typeof CiJobManifest | typeof IncusHostManifest | typeof SecretManifest;

function manifestOf(parsed: z.infer<AnyManifest>): Manifest {
  const { name, namespace, labels, annotations } = parsed.metadata;
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
