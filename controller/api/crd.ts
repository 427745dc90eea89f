import type * as z from 'zod';
import { CiJob } from './cijob.ts';
import { IncusHost } from './incushost.ts';
import { group, version } from './meta.ts';
import { structuralSchema, type StructuralSchema } from './structural.ts';

/** A column of `kubectl get`. */
export interface PrinterColumn {
  name: string;
  type: 'string' | 'integer' | 'date';
  jsonPath: string;
  description: string;
  /** Shown only by `-o wide`. */
  wide?: true;
}

interface Resource {
  kind: string;
  plural: string;
  shortName: string;
  scope: 'Namespaced' | 'Cluster';
  schema: z.ZodObject<{ spec: z.ZodType; status: z.ZodType }>;
  columns: readonly PrinterColumn[];
  /** Fields that `kubectl get --field-selector` and watches can select by. */
  selectableFields: readonly string[];
}

const ready = (field: 'status' | 'reason' | 'message') => `.status.conditions[?(@.type=="Ready")].${field}`;

const age: PrinterColumn = {
  name: 'Age',
  type: 'date',
  jsonPath: '.metadata.creationTimestamp',
  description: 'How long ago it was created.',
};

export const ciJobResource: Resource = {
  kind: 'CiJob',
  plural: 'cijobs',
  shortName: 'cij',
  scope: 'Namespaced',
  schema: CiJob,
  columns: [
    { name: 'Phase', type: 'string', jsonPath: '.status.phase', description: 'Where the job is.' },
    { name: 'Reason', type: 'string', jsonPath: ready('reason'), description: 'Why it is there.' },
    { name: 'Host', type: 'string', jsonPath: '.status.host', description: 'The IncusHost that runs it.' },
    { name: 'Exit', type: 'integer', jsonPath: '.status.exitCode', description: 'Exit code of the command.' },
    { name: 'Ran', type: 'string', jsonPath: '.status.duration', description: 'How long the command ran.' },
    age,
    {
      name: 'Instance',
      type: 'string',
      jsonPath: '.status.instance.name',
      description: 'The Incus instance.',
      wide: true,
    },
    {
      name: 'Image',
      type: 'string',
      jsonPath: '.spec.instance.image',
      description: 'The image it is made from.',
      wide: true,
    },
    {
      name: 'Attempt',
      type: 'integer',
      jsonPath: '.status.attempt',
      description: 'Number of the current attempt.',
      wide: true,
    },
    {
      name: 'Class',
      type: 'string',
      jsonPath: '.status.failure.class',
      description: 'Whose fault the failure was.',
      wide: true,
    },
    {
      name: 'Message',
      type: 'string',
      jsonPath: ready('message'),
      description: 'The reason in a sentence.',
      wide: true,
    },
  ],
  selectableFields: ['.status.phase', '.status.host'],
};

export const incusHostResource: Resource = {
  kind: 'IncusHost',
  plural: 'incushosts',
  shortName: 'ih',
  scope: 'Cluster',
  schema: IncusHost,
  columns: [
    { name: 'Ready', type: 'string', jsonPath: ready('status'), description: 'Whether it can run jobs.' },
    { name: 'Reason', type: 'string', jsonPath: ready('reason'), description: 'Why it can or cannot.' },
    {
      name: 'Used',
      type: 'integer',
      jsonPath: '.status.instances.used',
      description: 'How many slots are taken.',
    },
    {
      name: 'Slots',
      type: 'integer',
      jsonPath: '.spec.capacity.instances',
      description: 'How many slots it has.',
    },
    {
      name: 'Incus',
      type: 'string',
      jsonPath: '.status.incus.version',
      description: 'Version of its Incus.',
    },
    age,
    {
      name: 'Address',
      type: 'string',
      jsonPath: '.spec.connection.ssh.address',
      description: 'Where it is. Empty for the controller’s own machine.',
      wide: true,
    },
    { name: 'Project', type: 'string', jsonPath: '.spec.project', description: 'Incus project.', wide: true },
    {
      name: 'Types',
      type: 'string',
      jsonPath: '.status.incus.instanceTypes',
      description: 'Instance types it can run.',
      wide: true,
    },
    {
      name: 'Message',
      type: 'string',
      jsonPath: ready('message'),
      description: 'The reason in a sentence.',
      wide: true,
    },
  ],
  selectableFields: [],
};

/** Every resource of the group. */
export const resources: readonly Resource[] = [ciJobResource, incusHostResource];

/** The OpenAPI schema of one version of a resource, as it stands in its CRD. */
export function resourceSchema(resource: Resource): StructuralSchema {
  const { spec, status } = resource.schema.shape;
  return {
    description: resource.schema.description ?? '',
    type: 'object',
    required: ['spec'],
    properties: {
      // The API server knows these three; what is written here is for `kubectl explain`.
      apiVersion: { description: `Always ${group}/${version}.`, type: 'string' },
      kind: { description: `Always ${resource.kind}.`, type: 'string' },
      metadata: { type: 'object' },
      spec: structuralSchema(spec, 'spec'),
      status: structuralSchema(status, 'status'),
    },
  };
}

/** The CustomResourceDefinition (`apiextensions.k8s.io/v1`) of a resource. */
export function customResourceDefinition(resource: Resource) {
  const singular = resource.kind.toLowerCase();
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${resource.plural}.${group}` },
    spec: {
      group,
      scope: resource.scope,
      names: {
        kind: resource.kind,
        listKind: `${resource.kind}List`,
        plural: resource.plural,
        singular,
        shortNames: [resource.shortName],
        categories: ['ci'],
      },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: resource.columns.map(({ wide, ...column }) => ({
            ...column,
            ...(wide && { priority: 1 }),
          })),
          ...(resource.selectableFields.length > 0 && {
            selectableFields: resource.selectableFields.map((jsonPath) => ({ jsonPath })),
          }),
          schema: { openAPIV3Schema: resourceSchema(resource) },
        },
      ],
    },
  };
}
