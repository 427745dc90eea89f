import * as z from 'zod';

/** What we use of `apiextensions.k8s.io/v1` JSONSchemaProps. */
export interface StructuralSchema {
  description?: string;
  type: 'object' | 'array' | 'string' | 'integer' | 'boolean';
  default?: unknown;
  enum?: unknown[];
  format?: string;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  items?: StructuralSchema;
  minProperties?: number;
  maxProperties?: number;
  additionalProperties?: StructuralSchema;
  required?: string[];
  properties?: Record<string, StructuralSchema>;
  'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map';
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-validations'?: { rule: string; message: string }[];
}

/** One step into an object or a schema: the name of a field or the index of an element. */
export type Step = string | number;

/** The keywords in the order in which they are written, so that a generated file reads well and never shuffles. */
const keywords = [
  'description',
  'type',
  'format',
  'default',
  'enum',
  'minLength',
  'maxLength',
  'pattern',
  'minimum',
  'maximum',
  'minItems',
  'maxItems',
  'minProperties',
  'maxProperties',
  'x-kubernetes-list-type',
  'x-kubernetes-list-map-keys',
  'x-kubernetes-validations',
  'items',
  'additionalProperties',
  'required',
  'properties',
] as const;
const types: readonly unknown[] = ['object', 'array', 'string', 'integer', 'boolean'];

/**
 * The structural schema of a zod schema
 * (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema).
 *
 * `x-kubernetes-*` and bounds set by `.meta()` are passed through.
 * @throws {Error} naming the field, where the schema has something that a CRD cannot say (a union, a reference)
 *   or must not leave open (a string, list or map without an upper bound, on which CEL rules would have no cost limit).
 */
export function structuralSchema(schema: z.ZodType, path: string): StructuralSchema {
  return structural(z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input' }), path);
}

type Node = Record<string, unknown>;

function structural(node: Node, path: string): StructuralSchema {
  const unknown = Object.keys(node).filter((key) => !(keywords as readonly string[]).includes(key));
  if (unknown.length > 0) throw new Error(`${path}: a CRD cannot say ${unknown.join(', ')}`);
  if (!types.includes(node['type'])) throw new Error(`${path}: a CRD needs one type`);
  requireBounds(node, path);

  const out: Node = {};
  for (const key of keywords) {
    const value = node[key];
    if (value !== undefined) out[key] = value;
  }
  if (out['minLength'] === 0) delete out['minLength'];
  // The format says the same as zod's long pattern, and has a length that CEL knows.
  if (out['format'] === 'date-time') delete out['pattern'];
  if (isNode(node['items'])) out['items'] = structural(node['items'], `${path}[]`);
  if (isNode(node['properties'])) {
    out['properties'] = Object.fromEntries(
      Object.entries(node['properties']).map(([name, property]) => [
        name,
        structural(property as Node, `${path}.${name}`),
      ]),
    );
    // Beside properties it would be refused: unknown fields are the API server's to prune or, if strict, to refuse.
    delete out['additionalProperties'];
  } else if (isNode(node['additionalProperties'])) {
    out['additionalProperties'] = structural(node['additionalProperties'], `${path}.*`);
  }
  return out as unknown as StructuralSchema;
}

function requireBounds(node: Node, path: string): void {
  const bound = (key: string) => {
    if (typeof node[key] !== 'number') throw new Error(`${path}: needs ${key}`);
  };
  switch (node['type']) {
    case 'string':
      if (node['enum'] === undefined && node['format'] !== 'date-time') bound('maxLength');
      break;
    case 'integer':
      bound('minimum');
      bound('maximum');
      break;
    case 'array':
      bound('maxItems');
      break;
    case 'object':
      if (node['properties'] === undefined) bound('maxProperties');
      break;
  }
}

/** The part of a schema that describes what `step` leads to; nothing where there is no such field. */
export function childSchema(schema: StructuralSchema | undefined, step: Step): StructuralSchema | undefined {
  if (typeof step === 'number') return schema?.items;
  const { properties = {}, additionalProperties } = schema ?? {};
  return Object.hasOwn(properties, step) ? properties[step] : additionalProperties;
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
