import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { holdUntilAnnotation } from '../../controller/api/meta.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { ApiRequests, type ApiAnswer } from './support/api-requests.ts';
import { eventually, manifest } from './support/cluster.ts';

/*
 * The sample policies of deploy/policies, judged by a real API server. What they do to a controller at work is in
 * deploy-gitops.test.ts.
 */

const repository = join(import.meta.dirname, '../..');
const group = '/apis/ci.pikaci.dev/v1alpha1';
const hour = 3600_000;
let plane: ControlPlane;
let api: ApiRequests;
/** Made before there was any policy. */
const earlier = { command: 'true', runAsRoot: true, image: 'evil/image', holdOnFailureSeconds: 604800 };

beforeAll(async () => {
  plane = await ControlPlane.start();
  api = new ApiRequests(plane.adminKubeconfig);
  await plane.kubectlOk(['apply', '-f', join(repository, 'crds')]);
  await plane.kubectlOk(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=60s']);
  for (const name of ['ci', 'rooted']) await plane.kubectlOk(['create', 'namespace', name]);
  await plane.kubectlOk(['label', 'namespace', 'rooted', 'ci.pikaci.dev/root=allowed']);
  await made('earlier', earlier, { [holdUntilAnnotation]: '2099-01-01T00:00:00Z' });
  await plane.kubectlOk(['apply', '--server-side', '-k', join(repository, 'deploy/policies')]);
  // The API server takes a moment to take up each policy.
  const tooMuch = { runAsRoot: true, image: 'evil/image', instance: { cpu: 9 } };
  const refusals = async () => [
    ...(await Promise.all(Object.entries(tooMuch).map(([key, value]) => create({ [key]: value })))),
    await create({}, { [holdUntilAnnotation]: 'never' }),
  ];
  await eventually(
    refusals,
    (answers) => answers.every(({ status }) => status === 403),
    'each policy refuses',
    30,
  );
});
afterAll(async () => {
  api[Symbol.dispose]();
  await plane.stop();
});

/** A job that every policy lets pass, but for what is given. */
function job(name: string, spec: object, annotations: Record<string, string> = {}) {
  const object = manifest(name, { command: 'true', ...spec });
  return { ...object, metadata: { ...object.metadata, annotations } };
}

/** What the API server says to the creation of a job. */
function create(
  spec: object,
  annotations: Record<string, string> = {},
  namespace = 'ci',
): Promise<ApiAnswer> {
  const path = `${group}/namespaces/${namespace}/cijobs?dryRun=All`;
  return api.send('POST', path, job('asked', spec, annotations));
}

async function made(name: string, spec: object, annotations: Record<string, string> = {}): Promise<void> {
  const answer = await api.send('POST', `${group}/namespaces/ci/cijobs`, job(name, spec, annotations));
  expect(answer, answer.message).toMatchObject({ status: 201 });
}

const change = (name: string, patch: object, below = ''): Promise<ApiAnswer> =>
  api.send('PATCH', `${group}/namespaces/ci/cijobs/${name}${below}`, patch, 'application/merge-patch+json');
const hold = (name: string, until: string) =>
  change(name, { metadata: { annotations: { [holdUntilAnnotation]: until } } });
const at = (milliseconds: number) => new Date(milliseconds).toISOString();

const refusal = (message: string) => ({
  status: 403,
  message: expect.stringContaining(message) as string,
});

describe('maximum-size', () => {
  test.each([
    [{ instance: { cpu: 9 } }, 'at most 8 CPUs'],
    [{ instance: { memory: '17GiB' } }, 'at most 16GiB'],
    [{ instance: { memory: '1TiB' } }, 'at most 16GiB'],
    [{ instance: { memory: '18GB' } }, 'at most 16GiB'],
    [{ instance: { rootDisk: '101GiB' } }, 'at most 100GiB'],
    [{ instance: { rootDisk: '108GB' } }, 'at most 100GiB'],
    [{ timeoutSeconds: 4 * 3600 + 1 }, 'at most 4 hours (spec.timeoutSeconds)'],
    [{ bootTimeoutSeconds: 601 }, 'at most 10 minutes (spec.bootTimeoutSeconds)'],
    [{ infraRetryLimit: 4 }, 'at most 3 new attempts (spec.infraRetryLimit)'],
    [{ holdOnFailureSeconds: 4 * 3600 + 1 }, 'at most 4 hours (spec.holdOnFailureSeconds)'],
    [{ holdOnFailureSeconds: 604800 }, 'at most 4 hours (spec.holdOnFailureSeconds)'],
  ])('refuses %j', async (spec, message) => {
    expect(await create(spec)).toEqual(refusal(message));
  });

  test.each([
    {},
    { instance: { cpu: 8, memory: '16GiB', rootDisk: '100GiB' } },
    { instance: { memory: '17GB', rootDisk: '107GB' } },
    { timeoutSeconds: 4 * 3600, bootTimeoutSeconds: 600, infraRetryLimit: 3, holdOnFailureSeconds: 4 * 3600 },
    { queueTimeoutSeconds: 2592000, ttlSecondsAfterFinished: 31536000, priority: 1000000 },
  ])('lets %j pass', async (spec) => {
    expect(await create(spec)).toMatchObject({ status: 201 });
  });
});

describe('maximum-hold', () => {
  test.each([
    ['2099-01-01T00:00:00Z', 'a time far away'],
    ['2099', 'a year, which the controller takes for a time'],
    ['Jan 1 2099', 'what JavaScript takes for a time'],
    ['2020-01-01T00:00:00+00:00', 'another time zone'],
    ['2020-13-01T00:00:00Z', 'no time'],
    ['9999-99-99T99:99:99Z', 'no time at all'],
    [at(Date.now() + 6 * hour), 'more than the time of the job and four hours'],
  ])('refuses a new CiJob with %s: %s', async (until) => {
    const answer = await create({}, { [holdUntilAnnotation]: until });
    expect(answer.message).toContain('cijob-maximum-hold');
    expect([403, 422]).toContain(answer.status);
  });

  test('lets a new CiJob be held for its own time and four hours', async () => {
    const soon = at(Date.now() + 4.9 * hour);
    expect(await create({ timeoutSeconds: 3600 }, { [holdUntilAnnotation]: soon })).toMatchObject({
      status: 201,
    });
  });

  test('counts from the admission of a job that has not ended, however long ago it was made', async () => {
    await made('admitted', { timeoutSeconds: 3600 });
    const startTime = Date.now() + 24 * hour;
    expect(await change('admitted', { status: { startTime: at(startTime) } }, '/status')).toMatchObject({
      status: 200,
    });
    expect(await hold('admitted', at(startTime + 5.1 * hour))).toEqual(
      refusal('4 hours after the end of the job'),
    );
    expect(await hold('admitted', at(startTime + 4.9 * hour))).toMatchObject({ status: 200 });
  });

  test('counts from the end of a job that is over, and says until when', async () => {
    await made('over', { timeoutSeconds: 4 * 3600 });
    const completionTime = '2026-01-01T00:00:00.500Z';
    await change('over', { status: { startTime: '2025-12-31T20:00:00Z', completionTime } }, '/status');
    expect(await hold('over', '2026-01-01T04:00:01Z')).toEqual(
      refusal('at most 2026-01-01T04:00:00.5Z: 4 hours after the end of the job'),
    );
    expect(await hold('over', '2026-01-01T04:00:00Z')).toMatchObject({ status: 200 });
  });

  test('lets everything else be changed on a CiJob that was held for longer before', async () => {
    expect(await change('earlier', { spec: { cancel: true } })).toMatchObject({ status: 200 });
    expect(await change('earlier', { metadata: { finalizers: ['ci.pikaci.dev/x'] } })).toMatchObject({
      status: 200,
    });
    expect(await hold('earlier', '2098-01-01T00:00:00Z')).toMatchObject({ status: 403 });
    const release = { [holdUntilAnnotation]: null };
    expect(await change('earlier', { metadata: { annotations: release, finalizers: null } })).toMatchObject({
      status: 200,
    });
  });
});

describe('allowed-images', () => {
  test.each([
    'evil/image',
    'pikaci',
    'pikaci/busybox2',
    'Pikaci/busybox',
    'pikaci/busybox/',
    'a'.repeat(64),
    'abcdef012345',
  ])('refuses %s', async (image) => {
    expect(await create({ image })).toEqual(
      refusal(`image ${image} is not allowed; these are: pikaci/dev, pikaci/busybox`),
    );
  });

  test.each(['pikaci/dev', 'pikaci/busybox'])('lets %s pass', async (image) => {
    expect(await create({ image })).toMatchObject({ status: 201 });
  });
});

describe('no-root', () => {
  test('refuses runAsRoot but where the namespace allows it', async () => {
    const root = { runAsRoot: true };
    expect(await create(root)).toEqual(refusal('runAsRoot is not allowed in this namespace'));
    expect(await create({ runAsRoot: false })).toMatchObject({ status: 201 });
    await eventually(
      () => create(root, {}, 'rooted'),
      ({ status }) => status === 201,
      'the label is seen',
      30,
    );
  });

  test('cannot be got round by a change', async () => {
    await made('user', {});
    expect(await change('user', { spec: { runAsRoot: true } })).toMatchObject({
      status: 422,
      message: expect.stringContaining('is immutable') as string,
    });
  });
});
