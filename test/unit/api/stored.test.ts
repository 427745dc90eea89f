import { describe, expect, test } from 'vitest';
import { cijobs, incushosts } from '../../../controller/kube/resources.ts';
import { goodHost, goodJob } from './bad-manifests.ts';

const metadata = { name: 'x', uid: 'u', creationTimestamp: '2026-01-01T00:00:00Z' };
const fields = (object: object, { schema } = cijobs as typeof cijobs | typeof incushosts) =>
  schema.safeParse({ ...object, metadata }).error?.issues.map(({ path }) => path.join('.'));

describe('a stored object', () => {
  test.each([
    ['a CiJob', cijobs, goodJob({ env: [{ name: 'UID', value: '7' }] }, { rootDisk: '999999TiB' })],
    ['an IncusHost', incushosts, goodHost({ capacity: { instances: 4, memory: '1000TiB' } })],
  ])('is read with values that %s of today cannot have', (_kind, resource, object) => {
    expect(fields(object, resource)).toBeUndefined();
    expect(resource.schema.parse({ ...object, metadata })).toMatchObject({ spec: object['spec'] as object });
  });

  test('has its defaults filled in beside them', () => {
    const { spec } = cijobs.schema.parse({ ...goodJob({}, { memory: '1000TiB' }), metadata });
    expect(spec).toMatchObject({ timeoutSeconds: 3600, env: [], instance: { rootDisk: '20GiB' } });
  });

  test('is refused for what no version took, such values or not', () => {
    const twice = { name: 'UID', value: '7' };
    expect(fields(goodJob({}, { memory: '4Gi' }))).toEqual(['spec.instance.memory']);
    expect(fields(goodJob({ env: [twice, twice] }, { memory: '1000TiB' }))).toEqual(['spec.env']);
  });
});
