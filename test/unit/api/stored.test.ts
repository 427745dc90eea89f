import { describe, expect, test } from 'vitest';
import { parseCiJob, parseIncusHost } from '../../../controller/api/stored.ts';
import { goodHost, goodJob } from './bad-manifests.ts';

const metadata = {
  ...{ name: 'job', namespace: 'ci', uid: 'u-1', generation: 3, resourceVersion: '7' },
  ...{ creationTimestamp: '2026-01-01T00:00:00Z', finalizers: ['ci.pikaci.dev/instance-cleanup'] },
  managedFields: [{ manager: 'kubectl' }],
};

describe('a CiJob from the API server', () => {
  test('is read with defaults, without the metadata that nobody here reads', () => {
    const stored = parseCiJob({ ...goodJob(), metadata });
    expect(stored.ok && stored.object).toMatchObject({
      metadata: { uid: 'u-1', generation: 3 },
      spec: { timeoutSeconds: 3600 },
    });
    expect(JSON.stringify(stored)).not.toContain('managedFields');
  });

  test('may have a status of a newer controller: what we do not know is left out', () => {
    const status = { phase: 'Running', host: 'h', mood: 'good', instance: { name: 'i', node: 'n' } };
    const stored = parseCiJob({ ...goodJob(), metadata, status });
    expect(stored.ok && stored.object.status).toEqual({
      phase: 'Running',
      host: 'h',
      instance: { name: 'i' },
    });
  });

  test('whose spec we do not understand is still known by its metadata and status, with the problems', () => {
    const object = { ...goodJob({ network: 'none', timeoutSeconds: 0 }), metadata };
    expect(parseCiJob({ ...object, status: { host: 'h' } })).toEqual({
      ok: false,
      metadata: expect.objectContaining({ uid: 'u-1', finalizers: metadata.finalizers }) as object,
      status: { host: 'h' },
      problems: [
        { path: 'spec.timeoutSeconds', message: 'must be at least 1, found the number 0' },
        { path: 'spec.network', message: expect.stringMatching(/^is not a field; there are /) as string },
      ],
    });
  });

  test('whose status is garbled is known without it', () => {
    const stored = parseCiJob({ ...goodJob(), metadata, status: { phase: 'Sleeping' } });
    expect(stored).toMatchObject({ ok: false, problems: [{ path: 'status.phase' }] });
    expect(!stored.ok && stored.status).toBeUndefined();
  });

  test.each([null, 'x', {}, { ...goodJob() }])(
    'that is no object of Kubernetes is a TypeError: %j',
    (object) => {
      expect(() => parseCiJob(object)).toThrow(TypeError);
    },
  );
});

test('an IncusHost from the API server is read the same way', () => {
  expect(parseIncusHost({ ...goodHost(), metadata })).toMatchObject({ ok: true });
  const bad = { ...goodHost({ capacity: {} }), metadata };
  expect(parseIncusHost(bad)).toMatchObject({
    ok: false,
    problems: [{ path: 'spec.capacity.instances', message: 'is required' }],
  });
});
