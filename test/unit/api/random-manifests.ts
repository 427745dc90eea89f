import fc from 'fast-check';
import { goodHost, goodJob, hostKey } from './bad-manifests.ts';

/*
 * Random manifests, good and spoilt, for the law that zod and the API server give one verdict on each.
 */

const word = fc.stringMatching(/^[a-z]([a-z0-9-]{0,6}[a-z0-9])?$/);
const path = fc.array(word, { minLength: 1, maxLength: 4 }).map((parts) => `/x/${parts.join('/')}`);
/** Where a mount may be, and where it may not, and what only begins like either. */
const guestPath = fc.oneof(
  path,
  fc.constantFrom(
    ...['/etc', '/etc/x', '/etc2', '/ETC', '/var', '/var/lib', '/var/lib/x', '/var/lib/pikaci-incus-run'],
    ...[
      '/var/runner',
      '/var/run/x',
      '/run',
      '/running',
      '/lib',
      '/libexec',
      '/lib64/x',
      '/usr-local',
      '/devel',
    ],
  ),
);
const size = fc.constantFrom('512MiB', '4GiB', '1TB');
const text = fc.oneof(
  fc.string({ minLength: 1, maxLength: 40 }),
  fc.string({ minLength: 1, maxLength: 40, unit: 'grapheme' }),
);
const labels = fc.dictionary(word, word, { maxKeys: 3 });

const env = fc.uniqueArray(
  fc
    .record({
      name: word.map((name) => name.toUpperCase().replaceAll('-', '_')),
      source: fc.oneof(
        text.map((value) => ({ value })),
        word.map((name) => ({ valueFrom: { secretKeyRef: { name, key: 'k' } } })),
      ),
    })
    .map(({ name, source }) => ({ name, ...source })),
  { selector: ({ name }) => name, maxLength: 4 },
);

const glob = fc.oneof(
  path.map((at) => at.slice(1)),
  fc.constantFrom('**', '*.{a,b}', '..a', '../a', 'a/..', '/a', '😀'),
  text,
);

const optional = { requiredKeys: [] };

const jobSpec = fc
  .tuple(
    fc.record(
      {
        runAsRoot: fc.boolean(),
        timeoutSeconds: fc.integer({ min: 1, max: 604800 }),
        env,
        mounts: fc.uniqueArray(fc.record({ name: word, source: path, path: guestPath }), {
          selector: ({ name, path: at }) => `${name}${at}`,
          comparator: (a, b) => a === b,
          maxLength: 3,
        }),
        artifacts: fc.array(glob, { maxLength: 3 }),
        hostSelector: fc.record({ matchLabels: labels }),
        priority: fc.integer({ min: -1000, max: 1000 }),
        infraRetryLimit: fc.integer({ min: 0, max: 10 }),
        suspend: fc.boolean(),
        cancel: fc.boolean(),
        ttlSecondsAfterFinished: fc.nat(100000),
      },
      optional,
    ),
    text,
    fc.record(
      { cpu: fc.integer({ min: 1, max: 64 }), memory: size, rootDisk: size, profiles: fc.uniqueArray(word) },
      optional,
    ),
  )
  .map(([spec, command, instance]) => goodJob({ ...spec, command }, instance));

const pattern = fc.oneof(
  word,
  word.map((name) => `${name}*`),
  fc.constant('*'),
);

const hostSpec = fc
  .tuple(
    fc.record(
      {
        project: word,
        maxConcurrentStarts: fc.integer({ min: 1, max: 256 }),
        allowedSources: fc.uniqueArray(path, { maxLength: 4 }),
        allowedMountPaths: fc.uniqueArray(guestPath, { maxLength: 4 }),
        allowedImages: fc.uniqueArray(pattern, { maxLength: 4 }),
        allowedProfiles: fc.uniqueArray(pattern, { maxLength: 4 }),
        unschedulable: fc.boolean(),
        capacity: fc.record({ instances: fc.nat(100), memory: size }),
        allowedNamespaces: fc.oneof(
          fc.constant({ all: true }),
          labels.map((matchLabels) => ({ matchLabels })),
        ),
      },
      optional,
    ),
    fc.record({ port: fc.integer({ min: 1, max: 65535 }), via: fc.constantFrom('Socket', 'Sudo') }, optional),
  )
  .map(([spec, ssh]) => goodHost(spec, ssh));

/** Values that are right in one place and wrong in most others. */
const junk = fc.oneof(
  fc.constantFrom<unknown[]>(
    ...[null, '', 'x', '/', '/a/../b', '/a/', '//a', '/ok', 'a\0b', '4Gi', '4GiB', 'true', '5', hostKey],
    ...[0, -1, 1, 1.5, 1e12, 70_000, true, false, [], {}, [null], ['a', 'a'], [{}], { a: 'b' }, { a: 1 }],
    ...['é'.repeat(64), '😀'.repeat(1020), '/'.padEnd(1030, '😀'), 'x'.repeat(16385)],
  ),
  fc.string({ unit: 'binary', maxLength: 6 }).filter((value) => value.isWellFormed()),
  fc.integer(),
);
const key = fc.constantFrom('name', 'path', 'value', 'valueFrom', 'bogus', 'ssh', 'local', 'all', 'memory');

type Edit = { pick: number; value: unknown; key: string; how: 'replace' | 'remove' | 'add' | 'repeat' };
const edit = fc.record({
  pick: fc.nat(1000),
  value: junk,
  key,
  how: fc.constantFrom<Edit['how'][]>('replace', 'remove', 'add', 'repeat'),
});

/** A manifest after up to two random changes anywhere in its spec. */
export const manifests = fc
  .tuple(fc.oneof(jobSpec, hostSpec), fc.array(edit, { maxLength: 2 }))
  .map(([manifest, edits]) => edits.reduce(spoil, structuredClone(manifest)));

function spoil(manifest: Record<string, unknown>, { pick, value, key: added, how }: Edit) {
  const places = placesIn(manifest['spec']);
  const place = places[pick % Math.max(places.length, 1)];
  if (!place) return manifest;
  const { parent, at } = place;
  if (how === 'repeat' && Array.isArray(parent)) parent.push(structuredClone(parent[Number(at)]));
  else if (how === 'remove' && !Array.isArray(parent)) Reflect.deleteProperty(parent, at);
  else if (how === 'add' && !Array.isArray(parent)) Reflect.set(parent, added, structuredClone(value));
  else Reflect.set(parent, at, structuredClone(value));
  return manifest;
}

function placesIn(value: unknown): { parent: object; at: string }[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([at, child]) => [{ parent: value, at }, ...placesIn(child)]);
}
