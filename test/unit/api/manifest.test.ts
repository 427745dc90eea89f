import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ManifestError, parseManifests } from '../../../controller/api/manifest.ts';
import { badManifests, goodHost, goodJob } from './bad-manifests.ts';

const examples = join(import.meta.dirname, '../../../docs/examples');

const minimal = `apiVersion: ci.pikaci.dev/v1alpha1
kind: CiJob
metadata:
  name: job
spec:
  command: make
  instance:
    image: pikaci/dev
`;

/** The error of a file that must be refused. */
function refused(text: string): ManifestError {
  try {
    parseManifests(text, 'job.yaml');
  } catch (error) {
    if (error instanceof ManifestError) return error;
    throw error;
  }
  throw new Error('was accepted');
}

/** The lines of the message of a file that must be refused. */
const complaints = (text: string) => refused(text).message.split('\n');

function specOf(text: string): Record<string, unknown> {
  const [manifest] = parseManifests(text, 'job.yaml');
  if (manifest?.kind !== 'CiJob') throw new Error('is no CiJob');
  return { ...manifest.spec };
}

describe('a manifest file', () => {
  test.each(readdirSync(examples))('is accepted: the example %s', (file) => {
    expect(parseManifests(readFileSync(join(examples, file), 'utf8'), file)).not.toHaveLength(0);
  });

  test.each(badManifests)('is refused for $name, naming $field', ({ object, field }) => {
    const { problems } = refused(JSON.stringify(object));
    // Where the API server names the element, we may name the field that it lacks.
    expect(problems.some(({ path }) => path === field || path.startsWith(`${field}.`))).toBe(true);
  });

  test('gives its objects with defaults, and of metadata what the author decides', () => {
    const exported = minimal.replace(
      'name: job',
      'name: job\n  namespace: ci\n  labels: {a: b}\n  uid: x\n  creationTimestamp: null\n  annotations:',
    );
    expect(parseManifests(`${exported}status: {phase: Running}\n`, 'job.yaml')).toEqual([
      {
        apiVersion: 'ci.pikaci.dev/v1alpha1',
        kind: 'CiJob',
        metadata: { name: 'job', namespace: 'ci', labels: { a: 'b' } },
        spec: {
          command: 'make',
          instance: {
            type: 'VirtualMachine',
            image: 'pikaci/dev',
            cpu: 2,
            memory: '4GiB',
            rootDisk: '20GiB',
            profiles: ['default'],
          },
          ...{ runAsRoot: false, timeoutSeconds: 3600, env: [], mounts: [], priority: 0 },
          ...{ bootTimeoutSeconds: 120, infraRetryLimit: 2, suspend: false, cancel: false },
          ...{ holdOnFailureSeconds: 0, artifacts: [] },
        },
      },
    ]);
  });

  test('may hold several documents, empty ones too, and JSON', () => {
    const json = JSON.stringify(goodHost());
    const kinds = parseManifests(`---\n${minimal}---\n# nothing\n---\n${json}\n`, 'all.yaml').map(
      (m) => m.kind,
    );
    expect(kinds).toEqual(['CiJob', 'IncusHost']);
  });

  test('may hold a Secret, with its values in base64 as the API server keeps them', () => {
    const secret = `{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: eA==}, stringData: {b: x}}`;
    expect(parseManifests(secret, 'job.yaml')).toEqual([
      { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's' }, data: { a: 'eA==', b: 'eA==' } },
    ]);
    expect(complaints(secret.replace('eA==', '_'))).toEqual([
      expect.stringMatching(/^job.yaml:1: data\.a must be base64/) as string,
    ]);
  });

  test('means what it means to kubectl: YAML 1.1, and null as left out', () => {
    const spec = specOf(`${minimal}  suspend: yes\n  priority: 0777\n  cancel: null\n  hostSelector: ~\n`);
    expect(spec).toMatchObject({ suspend: true, priority: 511, cancel: false });
    expect(spec).not.toHaveProperty('hostSelector');
    const dated = `${minimal}  env: [{name: A, value: 2026-01-01}, {name: B, value: 12:30}]\n`;
    expect(specOf(dated)['env']).toEqual([
      { name: 'A', value: '2026-01-01' },
      { name: 'B', value: '12:30' },
    ]);
  });

  test('keeps every byte of a command and of values', () => {
    const awkward = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 200 })
      .filter((s) => !s.includes('\0'));
    fc.assert(
      fc.property(awkward, awkward, (command, value) => {
        const object = goodJob({ command, env: [{ name: 'A', value }] });
        expect(specOf(JSON.stringify(object))).toMatchObject({ command, env: [{ name: 'A', value }] });
      }),
    );
  });
});

describe('a refusal', () => {
  test('says file, line, field, what is wrong, what was found and what was meant', () => {
    expect(complaints(`${minimal}    memory: 4Gi\n`)).toEqual([
      'job.yaml:9: spec.instance.memory must be a size such as 512MiB or 4GiB, found "4Gi"; did you mean 4GiB?',
    ]);
  });

  test('names every problem, in the order of the file, and once', () => {
    const text = `${minimal}  timeout: 5\n  mounts:\n  - {name: a, source: b/../c}\n  priority: high\n`;
    expect(complaints(text)).toEqual([
      'job.yaml:9: spec.timeout is not a field; did you mean timeoutSeconds?',
      expect.stringMatching(/^job.yaml:11: spec.mounts\[0\].source must be an absolute path/),
      expect.stringMatching(/^job.yaml:11: spec.mounts\[0\].path is required unless/),
      'job.yaml:12: spec.priority must be a whole number, found "high"',
    ]);
  });

  test('counts documents and lines through the whole file', () => {
    const { problems, message } = refused(`${minimal}---\n${minimal.replace('command', 'comand')}`);
    expect(problems).toMatchObject(
      [
        { file: 'job.yaml', document: 2, line: 14, path: 'spec' },
        { file: 'job.yaml', document: 2, line: 15, path: 'spec.comand' },
      ].map(({ path, ...rest }) => (path === 'spec' ? { ...rest, path: 'spec.command' } : { ...rest, path })),
    );
    expect(message).toContain('job.yaml:15 (document 2): spec.comand is not a field; did you mean command?');
  });

  test.each([
    ['  image: x', 'spec.image is not a field; did you mean spec.instance.image?'],
    ['  Priority: 1', 'spec.Priority is not a field; did you mean priority?'],
    ['    cpu: "2"', 'spec.instance.cpu must be a whole number, found "2"; write it without quotes: 2'],
    [
      '    type: container',
      'must be one of VirtualMachine, Container, found "container"; did you mean Container?',
    ],
    ['    rootDisk: 20g', 'found "20g"; did you mean 20GB?'],
    ['    rootDisk: 100', 'must be a string, found the number 100; write it in quotes'],
    ['  env: [{name: A, value: on}]', 'must be a string, found the boolean true; write it in quotes'],
    ['  infraRetryLimit: 11', 'spec.infraRetryLimit must be at most 10, found the number 11'],
    ['  hostSelector: {matchLabels: {a: 1}}', 'spec.hostSelector.matchLabels.a must be a string'],
  ])('of "%s" says: %s', (line, said) => {
    expect(complaints(`${minimal}${line}\n`)).toEqual([expect.stringContaining(said) as string]);
  });

  test.each([
    ['nothing', '', 'holds no object'],
    ['comments only', '# nothing\n', 'holds no object'],
    ['a list', '- a\n', 'must be a map with apiVersion, kind, metadata and spec'],
    ['no kind', 'a: b\n', 'kind is required'],
    [
      'a misspelt kind',
      'kind: CIjob\n',
      'kind must be CiJob or IncusHost, found "CIjob"; did you mean CiJob?',
    ],
    ['a kind of every object', 'kind: constructor\n', 'kind must be CiJob or IncusHost'],
    [
      'another version',
      minimal.replace('v1alpha1', 'v1'),
      'apiVersion must be ci.pikaci.dev/v1alpha1, found',
    ],
    ['no metadata', minimal.replace(/metadata:\n.*\n/, ''), 'metadata is required'],
    ['no name', minimal.replace('name: job', 'labels: {}'), 'metadata.name is required'],
    ['an impossible name', minimal.replace('name: job', 'name: My_Job'), 'metadata.name must be lower case'],
    [
      'a name with an empty part',
      minimal.replace('name: job', 'name: a..b'),
      'metadata.name must be lower case',
    ],
    [
      'an unknown field of metadata',
      minimal.replace('name: job', 'name: a\n  lables: {}'),
      'did you mean labels?',
    ],
    [
      'a label that is none',
      minimal.replace('name: job', 'name: a\n  labels: {a b: c}'),
      'metadata.labels keys',
    ],
    ['a key twice', `${minimal}  priority: 1\n  priority: 2\n`, 'job.yaml:10: is not valid YAML: Map keys'],
    ['an unknown tag', `${minimal}  priority: !high 1\n`, 'is not valid YAML: Unresolved tag: !high'],
    [
      'a map as key',
      `${minimal}  ? {a: b}\n  : c\n`,
      'is not valid YAML: With stringKeys, all keys must be strings',
    ],
    ['a missing bracket', `${minimal}  env: [\n`, 'is not valid YAML'],
    ['an alias of nothing', `${minimal}  env: *none\n`, 'is not valid YAML: '],
    ['an alias of itself', `&a {kind: CiJob, spec: *a}\n`, 'has an alias that leads back to itself'],
    ['more than 1 MiB', `# ${'x'.repeat(2 ** 20)}`, 'job.yaml: has 1048578 bytes; at most 1048576 are taken'],
  ])('of %s says so', (_, text, said) => {
    expect(refused(text).message).toContain(said);
  });

  test('comes at once for aliases that multiply', () => {
    const bomb = Array.from({ length: 30 }, (_, i) =>
      i === 0 ? 'a0: &a0 [x, x]' : `a${i}: &a${i} [${`*a${i - 1}, `.repeat(9)}x]`,
    ).join('\n');
    expect(refused(bomb).message).toContain('Excessive alias count');
  });

  test('comes for brackets without end', () => {
    expect(refused('['.repeat(50_000)).message).toContain('is not valid YAML');
  });

  test('never repeats a long value whole', () => {
    expect(refused(minimal.replace('pikaci/dev', `":${'x'.repeat(200)}"`)).message.length).toBeLessThan(300);
  });
});

test('any text is either manifests or a ManifestError', () => {
  const yamlish = fc.array(
    fc.oneof(
      fc.string({ maxLength: 8 }),
      fc.constantFrom(
        ...['kind: CiJob\n', 'a: ', '- ', '&a ', '*a', '!t ', '{', '[', '|\n ', '---\n', '? ', '<<: '],
      ),
    ),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(yamlish, (parts) => {
      try {
        parseManifests(parts.join(''), 'x');
      } catch (error) {
        expect(error).toBeInstanceOf(ManifestError);
      }
    }),
    { numRuns: 1000 },
  );
});
