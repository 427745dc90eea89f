/** A manifest that must be refused: by us when it is read from a file, and by the API server. */
export interface BadManifest {
  name: string;
  object: Record<string, unknown>;
  /** The field that both messages must name. */
  field: string;
}

/** A CiJob that is accepted, to be spoilt. */
export function goodJob(spec: object = {}, instance: object = {}): Record<string, unknown> {
  return {
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'CiJob',
    metadata: { name: 'job' },
    spec: { command: 'true', instance: { image: 'pikaci/dev', ...instance }, ...spec },
  };
}

export const hostKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFm7vOeJxUlC0dTtAb5rl2BXBAxuFjTtzZzVyvx6SOHq';
const ssh = {
  address: 'build-1.example.org',
  user: 'ci',
  privateKeySecretRef: { name: 'build-1-ssh', key: 'id_ed25519' },
  hostKeys: [hostKey],
};

/** An IncusHost that is accepted, to be spoilt. */
export function goodHost(spec: object = {}, sshChanges: object = {}): Record<string, unknown> {
  return {
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'IncusHost',
    metadata: { name: 'host' },
    spec: {
      connection: { ssh: { ...ssh, ...sshChanges } },
      capacity: { instances: 4 },
      allowedNamespaces: { all: true },
      ...spec,
    },
  };
}

function job(name: string, field: string, spec: object, instance: object = {}): BadManifest {
  return { name: `a job with ${name}`, field, object: goodJob(spec, instance) };
}

function host(name: string, field: string, spec: object, sshChanges: object = {}): BadManifest {
  return { name: `a host with ${name}`, field, object: goodHost(spec, sshChanges) };
}

const mount = (fields: object) => ({ mounts: [{ name: 'snapshot', source: '/var/lib/cijob/a', ...fields }] });
const variable = (fields: object) => ({ env: [{ name: 'A', ...fields }] });

/**
 * Places in a guest from which a job would decide what its root runs, or what the runner says of the job; and those above
 * them. The first three were used to become root.
 */
const reservedPaths = [
  ...['/etc/systemd/system/pikaci-incus-run.service.d', '/etc/ld.so.preload', '/usr/bin', '/etc', '/root'],
  ...['/root/.ssh', '/usr', '/usr/local/bin', '/bin', '/sbin/x', '/lib', '/lib64', '/lib32/x', '/libx32'],
  ...['/boot', '/proc', '/sys/fs', '/dev/shm', '/run', '/run/current-system/sw', '/var/run', '/var/run/x'],
  ...['/artifacts', '/artifacts/x', '/cargo-home', '/cargo-target/debug'],
  ...['/var/lib/pikaci-incus-run', '/var/lib/pikaci-incus-run/x', '/var/lib', '/var'],
];

export const badManifests: readonly BadManifest[] = [
  // Wrong types and missing fields.
  job('no command', 'spec.command', { command: undefined }),
  job('a number as command', 'spec.command', { command: 5 }),
  job('a list as command', 'spec.command', { command: ['true'] }),
  job('null as command', 'spec.command', { command: null }),
  job('text as timeout', 'spec.timeoutSeconds', { timeoutSeconds: '600' }),
  job('a fraction as timeout', 'spec.timeoutSeconds', { timeoutSeconds: 1.5 }),
  job('text as runAsRoot', 'spec.runAsRoot', { runAsRoot: 'yes' }),
  job('a map as env', 'spec.env', { env: { A: 'b' } }),
  job('a number as value of a variable', 'spec.env[0].value', variable({ value: 5 })),
  job('text as instance', 'spec.instance', { instance: 'pikaci/dev' }),
  job('no image', 'spec.instance.image', {}, { image: undefined }),
  job('text as cpu', 'spec.instance.cpu', {}, { cpu: '2' }),
  job('more memory than Incus can count', 'spec.instance.memory', {}, { memory: '999999999TiB' }),
  job('a root disk of 1000 TiB', 'spec.instance.rootDisk', {}, { rootDisk: '1000TiB' }),
  job('a number as memory', 'spec.instance.memory', {}, { memory: 4096 }),
  { name: 'a job without spec', field: 'spec', object: { ...goodJob(), spec: undefined } },
  // Unknown fields.
  job('an unknown field', 'spec.timeout', { timeout: 5 }),
  job('an unknown field of the instance', 'spec.instance.cpus', {}, { cpus: 2 }),
  job('an unknown field of a mount', 'spec.mounts[0].readOnly', mount({ readOnly: false })),
  job('an unknown field of a variable', 'spec.env[0].val', variable({ value: 'a', val: 'b' })),
  { name: 'a job with an unknown field beside spec', field: 'sepc', object: { ...goodJob(), sepc: {} } },
  job('null in an unknown field', 'spec.constructor', { constructor: null }),
  // Values out of bounds.
  job('an empty command', 'spec.command', { command: '' }),
  job('a command of 20 KB', 'spec.command', { command: 'x'.repeat(20_000) }),
  job('a NUL byte in the command', 'spec.command', { command: 'echo a\0b' }),
  job('a NUL byte in a variable', 'spec.env[0].value', variable({ value: '\0' })),
  job('a timeout of no seconds', 'spec.timeoutSeconds', { timeoutSeconds: 0 }),
  job('a negative timeout', 'spec.timeoutSeconds', { timeoutSeconds: -5 }),
  job('a negative boot timeout', 'spec.bootTimeoutSeconds', { bootTimeoutSeconds: -1 }),
  job('a negative queue timeout', 'spec.queueTimeoutSeconds', { queueTimeoutSeconds: -1 }),
  job('a negative time to hold', 'spec.holdOnFailureSeconds', { holdOnFailureSeconds: -1 }),
  job('a negative time to live', 'spec.ttlSecondsAfterFinished', { ttlSecondsAfterFinished: -1 }),
  job('a negative retry limit', 'spec.infraRetryLimit', { infraRetryLimit: -1 }),
  job('a huge priority', 'spec.priority', { priority: 2 ** 40 }),
  job('no CPU', 'spec.instance.cpu', {}, { cpu: 0 }),
  job('a Kubernetes quantity as memory', 'spec.instance.memory', {}, { memory: '4Gi' }),
  job('no unit in rootDisk', 'spec.instance.rootDisk', {}, { rootDisk: '20' }),
  job('an unknown instance type', 'spec.instance.type', {}, { type: 'vm' }),
  job('an empty image', 'spec.instance.image', {}, { image: '' }),
  job('a remote in the image', 'spec.instance.image', {}, { image: 'images:debian/12' }),
  job('a profile twice', 'spec.instance.profiles', {}, { profiles: ['a', 'a'] }),
  job('17 mounts', 'spec.mounts', {
    mounts: Array.from({ length: 17 }, (_, i) => ({ name: `m${i}`, source: '/a', path: `/m/${i}` })),
  }),
  job('a bad label in hostSelector', 'spec.hostSelector.matchLabels', {
    hostSelector: { matchLabels: { 'not a label': 'x' } },
  }),
  job('17 labels in hostSelector', 'spec.hostSelector.matchLabels', {
    hostSelector: { matchLabels: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`l${i}`, 'x'])) },
  }),
  job('a hostSelector without matchLabels', 'spec.hostSelector.matchLabels', { hostSelector: {} }),
  // Environment.
  job('a variable that no shell can export', 'spec.env[0].name', { env: [{ name: '1-A', value: '' }] }),
  job('a variable that belongs to the runner', 'spec.env[0].name', {
    env: [{ name: 'PIKACI_INCUS_TIMEOUT_SECS', value: '1' }],
  }),
  ...['UID', 'EUID', 'PPID', 'SHELLOPTS', 'BASHOPTS', 'BASH_VERSINFO'].map((name) =>
    job(`${name}, which bash sets itself,`, 'spec.env[0].name', { env: [{ name, value: '1' }] }),
  ),
  job('a reserved variable from a Secret', 'spec.env[0].name', {
    env: [{ name: 'PIKACI_INCUS_RUN', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } }],
  }),
  job('a variable without value', 'spec.env[0]', variable({})),
  job(
    'a variable with two values',
    'spec.env[0]',
    variable({ value: 'a', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } }),
  ),
  job('a variable twice', 'spec.env', {
    env: [
      { name: 'A', value: '1' },
      { name: 'A', value: '2' },
    ],
  }),
  job(
    'an impossible Secret name',
    'spec.env[0].valueFrom.secretKeyRef.name',
    variable({ valueFrom: { secretKeyRef: { name: 'No/Secret', key: 'k' } } }),
  ),
  // Mounts.
  job('a mount twice', 'spec.mounts', {
    mounts: [
      { name: 'snapshot', source: '/a' },
      { name: 'snapshot', source: '/b', path: '/c' },
    ],
  }),
  job('two mounts on one path', 'spec.mounts', {
    mounts: [
      { name: 'snapshot', source: '/a' },
      { name: 'other', source: '/b', path: '/workspace/snapshot' },
    ],
  }),
  job('a relative source', 'spec.mounts[0].source', mount({ source: 'data' })),
  job('".." in a source', 'spec.mounts[0].source', mount({ source: '/var/lib/cijob/../../etc' })),
  job('a source that ends in ".."', 'spec.mounts[0].source', mount({ source: '/a/..' })),
  job('"." in a source', 'spec.mounts[0].source', mount({ source: '/a/./b' })),
  job('"//" in a source', 'spec.mounts[0].source', mount({ source: '/a//b' })),
  job('the root as source', 'spec.mounts[0].source', mount({ source: '/' })),
  job('a newline in a source', 'spec.mounts[0].source', mount({ source: '/a\nb' })),
  job('a relative path', 'spec.mounts[0].path', mount({ path: 'data' })),
  job('".." in a path', 'spec.mounts[0].path', mount({ path: '/data/../etc' })),
  job('a colon in a path', 'spec.mounts[0].path', mount({ path: '/data:more' })),
  ...reservedPaths.map((path) =>
    job(`a mount on ${path}, which is not the job's to give`, 'spec.mounts[0].path', mount({ path })),
  ),
  job('a mount of its own without path', 'spec.mounts[0]', { mounts: [{ name: 'mine', source: '/a' }] }),
  // Artifacts.
  job('text as artifacts', 'spec.artifacts', { artifacts: '**' }),
  job('33 globs', 'spec.artifacts', { artifacts: Array.from({ length: 33 }, (_, i) => `a${i}`) }),
  job('a number as glob', 'spec.artifacts[0]', { artifacts: [5] }),
  job('an empty glob', 'spec.artifacts[0]', { artifacts: [''] }),
  job('a glob of 257 characters', 'spec.artifacts[0]', { artifacts: ['x'.repeat(257)] }),
  job('an absolute glob', 'spec.artifacts[0]', { artifacts: ['/artifacts/*'] }),
  job('".." in a glob', 'spec.artifacts[0]', { artifacts: ['a/../b'] }),
  job('".." as a glob', 'spec.artifacts[0]', { artifacts: ['..'] }),
  job('a NUL byte in a glob', 'spec.artifacts[0]', { artifacts: ['a\0b'] }),
  // Hosts.
  host('both kinds of connection', 'spec.connection', { connection: { ssh, local: {} } }),
  host('no kind of connection', 'spec.connection', { connection: {} }),
  host('no connection', 'spec.connection', { connection: undefined }),
  host('no host key', 'spec.connection.ssh.hostKeys', {}, { hostKeys: [] }),
  host('no list of host keys', 'spec.connection.ssh.hostKeys', {}, { hostKeys: undefined }),
  host('text that is no host key', 'spec.connection.ssh.hostKeys[0]', {}, { hostKeys: ['accept-any'] }),
  host('a host key twice', 'spec.connection.ssh.hostKeys', {}, { hostKeys: [hostKey, hostKey] }),
  host('port 0', 'spec.connection.ssh.port', {}, { port: 0 }),
  host('port 70000', 'spec.connection.ssh.port', {}, { port: 70_000 }),
  host('an option as address', 'spec.connection.ssh.address', {}, { address: '-oProxyCommand=sh' }),
  host('an unknown pipe', 'spec.connection.ssh.via', {}, { via: 'Exec' }),
  host('a negative capacity', 'spec.capacity.instances', { capacity: { instances: -1 } }),
  host('no capacity', 'spec.capacity', { capacity: undefined }),
  host('no concurrent starts', 'spec.maxConcurrentStarts', { maxConcurrentStarts: 0 }),
  host('a relative allowed source', 'spec.allowedSources[0]', { allowedSources: ['nix/store'] }),
  host('the root as allowed source', 'spec.allowedSources[0]', { allowedSources: ['/'] }),
  ...reservedPaths.map((path) =>
    host(`${path} as allowed mount path`, 'spec.allowedMountPaths[0]', { allowedMountPaths: [path] }),
  ),
  host('the root as allowed mount path', 'spec.allowedMountPaths[0]', { allowedMountPaths: ['/'] }),
  host('"..", as allowed mount path', 'spec.allowedMountPaths[0]', { allowedMountPaths: ['/data/../etc'] }),
  host('an allowed mount path twice', 'spec.allowedMountPaths', { allowedMountPaths: ['/a', '/a'] }),
  host('33 allowed mount paths', 'spec.allowedMountPaths', {
    allowedMountPaths: Array.from({ length: 33 }, (_, index) => `/a/${index}`),
  }),
  host('an allowed image with "*" amidst', 'spec.allowedImages[0]', { allowedImages: ['pikaci/*/dev'] }),
  host('a remote in an allowed image', 'spec.allowedImages[0]', { allowedImages: ['images:debian*'] }),
  host('an allowed image twice', 'spec.allowedImages', { allowedImages: ['a', 'a'] }),
  host('65 allowed images', 'spec.allowedImages', {
    allowedImages: Array.from({ length: 65 }, (_, index) => `image-${index}`),
  }),
  host('an empty allowed profile', 'spec.allowedProfiles[0]', { allowedProfiles: [''] }),
  host('a path as allowed profile', 'spec.allowedProfiles[0]', { allowedProfiles: ['a/b'] }),
  host('nobody allowed', 'spec.allowedNamespaces', { allowedNamespaces: {} }),
  host('everybody and somebody allowed', 'spec.allowedNamespaces', {
    allowedNamespaces: { all: true, matchLabels: { a: 'b' } },
  }),
  host('all: false', 'spec.allowedNamespaces.all', { allowedNamespaces: { all: false } }),
];
