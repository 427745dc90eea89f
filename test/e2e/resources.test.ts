import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ciJobResource, customResourceDefinition } from '../../controller/api/crd.ts';
import { ManifestError, parseManifests } from '../../controller/api/manifest.ts';
import { instanceCleanupFinalizer } from '../../controller/api/meta.ts';
import { generatedName, nameEnds } from '../../controller/api/object-name.ts';
import { cijobs } from '../../controller/kube/resources.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { badManifests, goodHost, goodJob } from '../unit/api/bad-manifests.ts';
import { manifests } from '../unit/api/random-manifests.ts';
import { ApiRequests } from './support/api-requests.ts';

const repository = join(import.meta.dirname, '../..');
const examples = join(repository, 'docs/examples');
const jobs = '/apis/ci.pikaci.dev/v1alpha1/namespaces/default/cijobs';

let plane: ControlPlane;
let api: ApiRequests;

beforeAll(async () => {
  plane = await ControlPlane.start();
  api = new ApiRequests(plane.adminKubeconfig);
  await plane.kubectlOk(['apply', '-f', join(repository, 'crds')]);
  await plane.kubectlOk(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=60s']);
});
afterAll(async () => {
  api[Symbol.dispose]();
  await plane.stop();
});

const parsed = (object: object) =>
  parseManifests(Buffer.from(JSON.stringify(object)), 'job.json', String).manifests;
const patch = (name: string, spec: object, subresource = '') =>
  api.send('PATCH', `${jobs}/${name}${subresource}`, spec, 'application/merge-patch+json');

describe('the CustomResourceDefinitions', () => {
  test('have no complaints of the API server against them', async () => {
    const conditions = await plane.kubectlOk([
      ...['get', 'crd', '-o'],
      'jsonpath={range .items[*].status.conditions[*]}{.type}={.status}{"\\n"}{end}',
    ]);
    expect(conditions).not.toContain('NonStructuralSchema=True');
    expect(conditions.match(/Established=True/g)).toHaveLength(2);
  });

  test.each(readdirSync(examples))('accept the example %s, strictly', async (file) => {
    await plane.kubectlOk(['apply', '--validate=strict', '--dry-run=server', '-f', join(examples, file)]);
  });

  test.each(badManifests)('refuse $name, naming $field', async ({ object, field }) => {
    const answer = await api.dryRunCreate(object);
    expect(answer.status, answer.message).toBeGreaterThanOrEqual(400);
    expect(answer.status, answer.message).toBeLessThan(500);
    expect(answer.message).toContain(field);
  });

  describe.each<[string, (text: string) => Buffer | string]>([
    ['a list', (json) => `{"apiVersion": "v1", "kind": "List", "items": [${json}, ${json}]}`],
    [
      'a list of its kind',
      (json) => `{"apiVersion": "ci.pikaci.dev/v1alpha1", "kind": "CiJobList", "items": [${json}]}`,
    ],
    ['values of JSON after each other', (json) => `${json}\n${json}${json}`],
    ['documents of YAML, empty ones too', (json) => `---\n# none\n---\n${json}\n---\n---\n${json}\n`],
    ['UTF-8 after a byte order mark', (json) => `\uFEFF${json}`],
    ['UTF-16 of little endian', (json) => Buffer.from(`\uFEFF${json}`, 'utf16le')],
    ['UTF-16 of big endian', (json) => Buffer.from(`\uFEFF${json}`, 'utf16le').swap16()],
  ])('is taken by kubectl create as by us: %s', (_what, write) => {
    test.each([
      ['a name', { name: 'job' }],
      ['a generated name', { generateName: 'job.a-' }],
      ['a long generated name', { generateName: 'a'.repeat(70) }],
    ])('with %s', async (_how, metadata) => {
      const content = Buffer.from(write(JSON.stringify({ ...goodJob({ command: 'echo é' }), metadata })));
      const printed = await plane.kubectlOk(['create', '--dry-run=server', '-o', 'name', '-f', '-'], {
        input: content,
      });
      const end = () => Math.floor(Math.random() * nameEnds);
      const { manifests } = parseManifests(content, 'f', (beginning) => generatedName(beginning, end()));
      const shapes = (names: string[]) =>
        names.map((name) =>
          'name' in metadata
            ? name
            : `${name.slice(0, -5)} ${/^[bcdf-hj-np-tv-xz2456789]{5}$/.test(name.slice(-5))}`,
        );
      const theirs = printed
        .trim()
        .split('\n')
        .map((name) => name.replace('cijob.ci.pikaci.dev/', ''));
      expect(shapes(manifests.map((one) => one.metadata.name))).toEqual(shapes(theirs));
    });
  });

  test('are not found by kubectl create in UTF-16 without a byte order mark, nor by us', async () => {
    const content = Buffer.from(JSON.stringify(goodJob()), 'utf16le');
    const { code } = await plane.kubectl(['create', '--dry-run=server', '-f', '-'], { input: content });
    expect(code).not.toBe(0);
    expect(() => parseManifests(content, 'f', String)).toThrow('UTF-16 without a byte order mark');
  });

  test('fill in the defaults that we fill in', async () => {
    for (const object of [goodJob({}, {}), goodHost()]) {
      const printed = await plane.kubectlOk(['create', '--dry-run=server', '-o', 'json', '-f', '-'], {
        input: JSON.stringify(object),
      });
      const [ours] = parsed(object);
      expect(ours && 'spec' in ours && ours.spec).toEqual((JSON.parse(printed) as { spec: unknown }).spec);
    }
  });

  test('give the verdict that our own reading gives, on anything', async () => {
    const verdicts = { accepted: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(manifests, async (manifest) => {
        const answer = await api.dryRunCreate(manifest);
        const fault = faultOf(manifest);
        const accepted = answer.status === 201;
        verdicts[accepted ? 'accepted' : 'refused'] += 1;
        expect(accepted, `API server: ${answer.message}\nwe: ${fault ?? 'accepted'}`).toBe(
          fault === undefined,
        );
      }),
      { numRuns: 600 },
    );
    // A law that is only ever tried on one kind of input says little.
    expect(verdicts.accepted).toBeGreaterThan(60);
    expect(verdicts.refused).toBeGreaterThan(60);
  });
});

function faultOf(manifest: object): string | undefined {
  try {
    parsed(manifest);
    return undefined;
  } catch (error) {
    if (error instanceof ManifestError) return error.message;
    throw error;
  }
}

describe('a CiJob once created', () => {
  const full = {
    ...{
      hostSelector: { matchLabels: { a: 'b' } },
      queueTimeoutSeconds: 60,
      env: [{ name: 'A', value: 'a' }],
    },
    mounts: [{ name: 'snapshot', source: '/a' }],
  };
  beforeAll(async () => {
    const metadata = { name: 'created' };
    const object = { ...goodJob(full, { rootDisk: '30GiB', profiles: ['a', 'b'] }), metadata };
    expect(await api.send('POST', jobs, object)).toMatchObject({ status: 201 });
    const bare = { ...goodJob(), metadata: { name: 'bare' } };
    expect(await api.send('POST', jobs, bare)).toMatchObject({ status: 201 });
  });

  test.each([
    ['created', 'command', { command: 'false' }],
    ['created', 'runAsRoot', { runAsRoot: true }],
    ['created', 'timeoutSeconds', { timeoutSeconds: 1 }],
    ['created', 'env', { env: [{ name: 'A', value: 'b' }] }],
    ['created', 'env', { env: [] }],
    ['created', 'instance', { instance: { image: 'other' } }],
    ['created', 'instance', { instance: { cpu: 9 } }],
    ['created', 'instance', { instance: { rootDisk: null } }],
    ['created', 'instance', { instance: { profiles: ['b', 'a'] } }],
    ['created', 'mounts', { mounts: [] }],
    ['created', 'mounts', { mounts: [{ name: 'snapshot', source: '/etc' }] }],
    ['created', 'hostSelector', { hostSelector: { matchLabels: { a: 'c' } } }],
    ['created', 'hostSelector', { hostSelector: null }],
    ['bare', 'hostSelector', { hostSelector: { matchLabels: {} } }],
    ['created', 'priority', { priority: 7 }],
    ['created', 'bootTimeoutSeconds', { bootTimeoutSeconds: 7 }],
    ['created', 'queueTimeoutSeconds', { queueTimeoutSeconds: 7 }],
    ['created', 'queueTimeoutSeconds', { queueTimeoutSeconds: null }],
    ['bare', 'queueTimeoutSeconds', { queueTimeoutSeconds: 7 }],
    ['created', 'infraRetryLimit', { infraRetryLimit: 7 }],
    ['created', 'holdOnFailureSeconds', { holdOnFailureSeconds: 7 }],
  ])('%s keeps its %s', async (name, field, change) => {
    const answer = await patch(name, { spec: change });
    expect(answer.status, answer.message).toBe(422);
    expect(answer.message).toContain(field);
    expect(answer.message).toContain('is immutable');
  });

  test('can be suspended, resumed and given another time to live', async () => {
    for (const spec of [
      { suspend: true },
      { suspend: false },
      { ttlSecondsAfterFinished: 5 },
      { ttlSecondsAfterFinished: null },
    ]) {
      expect(await patch('created', { spec })).toMatchObject({ status: 200 });
    }
  });

  test('can be cancelled, but not uncancelled', async () => {
    expect(await patch('bare', { spec: { cancel: true } })).toMatchObject({ status: 200 });
    for (const cancel of [false, null]) {
      const answer = await patch('bare', { spec: { cancel } });
      expect(answer.status).toBe(422);
      expect(answer.message).toMatch(/spec\.cancel.*cannot be taken back/);
    }
  });

  test('takes its status only through the subresource', async () => {
    const status = { phase: 'Running', exitCode: 3, duration: '1m32s', host: 'build-1' };
    const phase = () => plane.kubectlOk(['get', 'cijob', 'created', '-o', 'jsonpath={.status.phase}']);
    expect(await patch('created', { status })).toMatchObject({ status: 200 });
    expect(await phase()).toBe('');
    expect(await patch('created', { status }, '/status')).toMatchObject({ status: 200 });
    expect(await phase()).toBe('Running');
    const bad = await patch('created', { status: { phase: 'Sleeping' } }, '/status');
    expect(bad.status).toBe(422);
    expect(bad.message).toContain('status.phase');
  });

  test('shows what is known of it in columns', async () => {
    const conditions = [
      {
        ...{ type: 'Ready', status: 'False', lastTransitionTime: '2026-01-01T00:00:00Z' },
        ...{ reason: 'CommandFailed', message: 'exit code 3' },
      },
    ];
    const instance = { name: 'cijob-0123456789ab', imageFingerprint: 'ab'.repeat(32) };
    const failure = { class: 'Test', reason: 'CommandFailed', message: 'exit code 3' };
    const status = { phase: 'Failed', host: 'build-1', exitCode: 3, duration: '1m32s', attempt: 1 };
    const all = { ...status, conditions, instance, failure };
    expect(await patch('created', { status: all }, '/status')).toMatchObject({ status: 200 });

    const columns = async (...flags: string[]) =>
      (await plane.kubectlOk(['get', 'cij', 'created', ...flags]))
        .trim()
        .split('\n')
        .map((line) => line.split(/\s{2,}/));
    const [header, row] = await columns();
    expect(header).toEqual(['NAME', 'PHASE', 'REASON', 'HOST', 'EXIT', 'RAN', 'AGE']);
    expect(row).toEqual([
      ...['created', 'Failed', 'CommandFailed', 'build-1', '3', '1m32s'],
      expect.stringMatching(/^\d+m?s?/) as string,
    ]);
    const [wideHeader, wideRow] = await columns('-o', 'wide');
    expect(wideHeader?.slice(7)).toEqual(['INSTANCE', 'IMAGE', 'ATTEMPT', 'CLASS', 'MESSAGE']);
    expect(wideRow?.slice(7)).toEqual(['cijob-0123456789ab', 'pikaci/dev', '1', 'Test', 'exit code 3']);
    const selected = ['get', 'ci', '--field-selector', 'status.phase=Failed', '-o', 'name', '-A'];
    expect(await plane.kubectlOk(['get', 'cijobs', ...selected.slice(2)])).toBe(
      'cijob.ci.pikaci.dev/created\n',
    );
  });
});

describe('a CiJob that was admitted before a rule of today', () => {
  const wants = {
    env: [{ name: 'UID', value: '7' }],
    mounts: [{ name: 'm', source: '/a', path: '/etc/m' }],
  };
  const old = {
    ...goodJob(wants, { memory: '1000TiB' }),
    metadata: { name: 'old', finalizers: [instanceCleanupFinalizer] },
  };
  const crd = customResourceDefinition(ciJobResource);
  /** The definition without its rules on the values of the old job. */
  const before = () =>
    JSON.stringify(crd, (key, value: unknown) =>
      key === 'x-kubernetes-validations' || key === 'pattern' ? undefined : value,
    );
  const define = async (definition: string, status: number) => {
    await plane.kubectlOk(['apply', '-f', '-'], { input: definition });
    await expect.poll(async () => (await api.dryRunCreate(old)).status, { timeout: 30_000 }).toBe(status);
  };

  test('can be read, changed and let go by the controller', async () => {
    await define(before(), 201);
    expect(await api.send('POST', jobs, old)).toMatchObject({ status: 201 });
    await define(JSON.stringify(crd), 422);
    const stored = JSON.parse(await plane.kubectlOk(['get', 'cijob', 'old', '-o', 'json'])) as object;
    expect(cijobs.schema.parse(stored).spec).toMatchObject({ ...wants, instance: { memory: '1000TiB' } });

    const change = (path: string, value: unknown, subresource = '') =>
      api.send(
        'PATCH',
        `${jobs}/old${subresource}`,
        [{ op: 'add', path, value }],
        'application/json-patch+json',
      );
    expect(await change('/status', { phase: 'Running', host: 'build-1' }, '/status')).toMatchObject({
      status: 200,
    });
    expect(await change('/spec/cancel', true)).toMatchObject({ status: 200 });
    await plane.kubectlOk(['delete', 'cijob', 'old', '--wait=false']);
    expect(await change('/status', { phase: 'Cancelled' }, '/status')).toMatchObject({ status: 200 });
    expect(await change('/metadata/finalizers', [])).toMatchObject({ status: 200 });
    expect(await plane.kubectlOk(['get', 'cijob', 'old', '--ignore-not-found'])).toBe('');
  });
});

test('an IncusHost shows its columns, and its own fields before it was ever reached', async () => {
  await plane.kubectlOk(['apply', '-f', join(examples, 'incushost-ssh.yaml')]);
  const [header, row] = (await plane.kubectlOk(['get', 'ih', '-o', 'wide'])).trim().split('\n');
  expect(header?.split(/\s+/)).toEqual([
    ...['NAME', 'READY', 'REASON', 'USED', 'SLOTS', 'INCUS', 'AGE', 'ADDRESS', 'PROJECT', 'TYPES', 'MESSAGE'],
  ]);
  expect(row).toMatch(/^build-1 .* 16 .* build-1\.example\.org +cijob/);
});

test('kubectl says which field of a file is unknown, and which is wrong', async () => {
  const apply = (object: object) =>
    plane.kubectl(['apply', '--validate=strict', '-f', '-'], { input: JSON.stringify(object) });
  const unknown = await apply(goodJob({ timeout: 5 }));
  expect(unknown.code).toBe(1);
  expect(unknown.stderr).toContain('unknown field "spec.timeout"');
  const wrong = await apply(goodJob({}, { memory: '4Gi' }));
  expect(wrong.code).toBe(1);
  expect(wrong.stderr).toContain('spec.instance.memory');
});

describe('kubectl explain', () => {
  test('teaches what a spec is made of', async () => {
    const explained = await plane.kubectlOk(['explain', 'cijob.spec']);
    for (const words of ['bash --noprofile --norc -lc', 'TERM, then KILL', '-required-']) {
      expect(explained.replaceAll(/\s+/g, ' ')).toContain(words);
    }
    expect(await plane.kubectlOk(['explain', 'cijob'])).toContain('one command, run once');
    expect(await plane.kubectlOk(['explain', 'ih.spec.connection.ssh'])).toContain('ssh-keyscan');
  });
});
