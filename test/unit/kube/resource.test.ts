import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import { collectionPath, keyOf, objectPath, refOf } from '../../../controller/kube/resource.ts';

const pods = { group: '', version: 'v1', plural: 'pods', schema: z.unknown() };
const cijobs = { group: 'ci.pikaci.dev', version: 'v1alpha1', plural: 'cijobs', schema: z.unknown() };

describe('the paths of the API', () => {
  it.each([
    [collectionPath(pods), '/api/v1/pods'],
    [collectionPath(pods, 'ci'), '/api/v1/namespaces/ci/pods'],
    [collectionPath(cijobs), '/apis/ci.pikaci.dev/v1alpha1/cijobs'],
    [
      objectPath(cijobs, { namespace: 'ci', name: 'a' }, 'status'),
      '/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/a/status',
    ],
    [objectPath(pods, { name: '../b' }), '/api/v1/pods/..%2Fb'],
  ])('%s', (path, expected) => {
    expect(path).toBe(expected);
  });
});

describe('the key of an object', () => {
  it.each([{ namespace: 'ci', name: 'a' }, { name: 'host.example.org' }])('stands for %j', (ref) => {
    expect(refOf(keyOf(ref))).toEqual(ref);
  });
});
