import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import { ciJobConditions } from '../../../controller/api/cijob-status.ts';
import { crdFiles } from '../../../controller/api/crd-files.ts';
import {
  ciJobResource,
  customResourceDefinition,
  resources,
  resourceSchema,
} from '../../../controller/api/crd.ts';
import { incusHostConditions } from '../../../controller/api/incushost.ts';
import { structuralSchema, type StructuralSchema } from '../../../controller/api/structural.ts';

const crds = join(import.meta.dirname, '../../../crds');
const conditionTypes: readonly string[] = [...ciJobConditions, ...incusHostConditions];

/** The schema that a JSON path of a column leads to. */
function walk(schema: StructuralSchema, jsonPath: string): StructuralSchema | undefined {
  const steps = jsonPath.match(/\.[A-Za-z]+|\[\?\(@\.type=="[A-Za-z]+"\)\]/g) ?? [];
  if (steps.join('') !== jsonPath) throw new Error(`cannot read ${jsonPath}`);
  return steps.reduce<StructuralSchema | undefined>((at, step) => {
    if (step.startsWith('.')) return at?.properties?.[step.slice(1)];
    const type = /"(.*)"/.exec(step)?.[1] ?? '';
    return conditionTypes.includes(type) ? at?.items : undefined;
  }, schema);
}

interface Field {
  path: string;
  schema: StructuralSchema;
}

function fields(schema: StructuralSchema, path: string): Field[] {
  const children = Object.entries(schema.properties ?? {}).flatMap(([name, property]) =>
    fields(property, `${path}.${name}`),
  );
  const items = schema.items ? fields(schema.items, `${path}[]`) : [];
  return [{ path, schema }, ...children, ...items];
}

describe('crds/', () => {
  test('holds what the schemas say, and nothing else: run `npm run crds`', () => {
    const expected = crdFiles();
    const found = readdirSync(crds).map((name) => [name, readFileSync(join(crds, name), 'utf8')]);
    expect(Object.fromEntries(found)).toEqual(expected);
  });
});

describe.each(resources)('the CRD of $kind', (resource) => {
  const schema = resourceSchema(resource);
  const all = fields(schema, '').slice(1);

  test.each(resource.columns.filter(({ type }) => type !== 'date'))(
    'has a field for the column $name, of its type',
    ({ jsonPath, type, name }) => {
      const field = walk(schema, jsonPath);
      expect(field, `${name} ${jsonPath}`).toBeDefined();
      // A list is printed as text.
      expect(field?.type === 'array' ? 'string' : field?.type).toBe(type);
    },
  );

  test('has a field for all it can be selected by', () => {
    for (const path of resource.selectableFields) expect(walk(schema, path)?.type).toBe('string');
  });

  test('describes every field, in a sentence', () => {
    const named = all.filter(({ path }) => !path.endsWith('[]') && path !== '.metadata');
    const silent = named.filter(({ schema: { description = '' } }) => !/^[A-Z].*[.…]$/s.test(description));
    expect(silent.map(({ path }) => path)).toEqual([]);
  });

  test('says nothing that a structural schema may not', () => {
    for (const { path, schema: field } of all) {
      expect(Object.keys(field), path).not.toContain('anyOf');
      expect(field.properties && field.additionalProperties, path).toBeUndefined();
      // RE2 has no look-around; a pattern with one makes every write fail.
      expect(field.pattern ?? '', path).not.toMatch(/\(\?[=!<]/);
    }
  });
});

describe('the CRD of CiJob', () => {
  const crd = customResourceDefinition(ciJobResource);
  const spec = resourceSchema(ciJobResource).properties?.['spec']?.properties ?? {};

  test('has the columns that people were promised, in order', () => {
    const columns = crd.spec.versions[0]?.additionalPrinterColumns ?? [];
    const names = (wide: boolean) => columns.filter((c) => (c.priority === 1) === wide).map((c) => c.name);
    expect(names(false)).toEqual(['Phase', 'Reason', 'Host', 'Exit', 'Ran', 'Age']);
    expect(names(true)).toEqual(['Instance', 'Image', 'Attempt', 'Class', 'Message']);
  });

  test('lets only suspend, cancel and the time to live change', () => {
    const free = Object.entries(spec)
      .filter(
        ([, field]) => !field['x-kubernetes-validations']?.some(({ rule }) => rule === 'self == oldSelf'),
      )
      .map(([name]) => name);
    expect(free).toEqual(['suspend', 'cancel', 'ttlSecondsAfterFinished']);
  });

  test('keeps the rules of fields that are refined more than once', () => {
    const path = spec['mounts']?.items?.properties?.['path'];
    expect(path?.['x-kubernetes-validations']?.map(({ message }) => message)).toEqual([
      expect.stringContaining('".."') as string,
      expect.stringContaining('"//"') as string,
      expect.stringContaining('/artifacts') as string,
    ]);
  });
});

describe('a structural schema', () => {
  const text = z.string().max(5);

  test('keeps defaults, bounds, descriptions and x-kubernetes-*', () => {
    const schema = z.array(text).max(2).default([]).meta({ 'x-kubernetes-list-type': 'set' }).describe('D.');
    expect(structuralSchema(schema, 'a')).toEqual({
      ...{ description: 'D.', type: 'array', default: [], maxItems: 2, 'x-kubernetes-list-type': 'set' },
      items: { type: 'string', maxLength: 5 },
    });
  });

  test('leaves the pattern of a time out, and keeps its format', () => {
    const schema = z.iso.datetime().meta({ format: 'date-time' });
    expect(structuralSchema(schema, 'a')).toEqual({ type: 'string', format: 'date-time' });
  });

  test('says of a strict object only what its fields are', () => {
    expect(structuralSchema(z.strictObject({ a: text }), 'a')).not.toHaveProperty('additionalProperties');
  });

  test.each([
    ['a string', z.object({ b: z.string() }), 'a.b: needs maxLength'],
    ['a list', z.object({ b: z.array(text) }), 'a.b: needs maxItems'],
    ['an element', z.object({ b: z.array(z.string()).max(1) }), 'a.b[]: needs maxLength'],
    ['a map', z.object({ b: z.record(z.string(), text) }), 'a.b: needs maxProperties'],
    ['a value of a map', z.record(z.string(), z.string()).meta({ maxProperties: 1 }), 'a.*: needs maxLength'],
  ])('is refused for %s without bounds, by name', (_, schema, message) => {
    expect(() => structuralSchema(schema, 'a')).toThrow(message);
  });

  test.each([
    ['a union', z.object({ b: z.union([text, z.boolean()]) })],
    ['anything', z.object({ b: z.unknown() })],
    ['two patterns', z.object({ b: text.regex(/a/).regex(/b/) })],
    ['a null', z.object({ b: text.nullable() })],
  ])('is refused for %s, by name', (_, schema) => {
    expect(() => structuralSchema(schema, 'a')).toThrow(/^a\.b: a CRD/);
  });
});
