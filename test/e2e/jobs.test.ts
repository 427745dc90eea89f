import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CiJob } from '../../controller/api/cijob.ts';
import { addSource, startBench, type Bench, type BenchHost } from './support/bench.ts';
import { Cluster, type JobInput } from './support/cluster.ts';

/*
 * One job of each kind, through both pipes and in both guests. All are applied at once and run beside each other, four
 * at a time; the tests below look at how each ended.
 */

const ways = [
  { via: 'Socket', guest: 'busybox' },
  { via: 'Socket', guest: 'systemd' },
  { via: 'Sudo', guest: 'busybox' },
  { via: 'Sudo', guest: 'systemd' },
] as const;
type Way = (typeof ways)[number];

/** What a shell, a line-based format or a careless encoding would trip over. */
const awkward: Record<string, string> = {
  NEWLINES: '\nfirst\n\nsecond\r\n\n',
  QUOTES: `it's "so" ''""\\' \\"`,
  DOLLARS: '$HOME ${HOME} $(id) $((1+1)) $$ $',
  BACKTICKS: '`id` \\`id\\`',
  TABS_AND_BLANKS: '\t  two  blanks \t ',
  SEPARATORS: ';id&id|id<x>y(z){a,b}#!~*?[a-z]=%^',
  OPTION: '-n',
  BACKSLASHES: '\\ \\n \\\\ \\x41 \\',
  UNICODE: 'Grüße, 世界 🎉 \u202e e\u0301',
  EMPTY: '',
  ALL_OF_ASCII: String.fromCharCode(...Array.from({ length: 127 }, (_, index) => index + 1)),
};
/** A value that stands nowhere else on this machine. */
const token = `e2e-token-${randomBytes(12).toString('hex')}`;
const secret = 'a secret\nof "two" lines, $HOME and `id`\n';

/** Prints variables of the environment as lines of hexadecimal bytes. */
const printHex = (names: readonly string[]) =>
  names.map((name) => `printf %s "$${name}" | od -An -v -tx1 | tr -d ' \\n'; echo;`).join(' ');

const [snapshotPath, depsPath, buildPath] = [
  '/workspace/snapshot',
  '/staged/linux-rust/workspace-deps',
  '/staged/linux-rust/workspace-build',
];

/** Jobs by the last part of their names. Each that shows its output fails on purpose: a failure carries it. */
function jobsFor({ sources }: BenchHost): Record<string, JobInput> {
  return {
    passes: { command: 'test "$PWD" = /workspace/snapshot' },
    fails: { command: 'echo about to fail; exit 3' },
    'times-out': { command: 'echo before the limit; sleep 60; echo never', timeoutSeconds: 1 },
    'is-root': { command: 'id -u; exit 9', runAsRoot: true },
    'is-pikaci': { command: 'id -u; id -g; echo "$HOME"; touch /artifacts/mine && exit 9' },
    'has-env': {
      command: `${printHex(Object.keys(awkward))} exit 9`,
      env: Object.entries(awkward).map(([name, value]) => ({ name, value })),
    },
    'has-secret': {
      command: `${printHex(['TOKEN'])} exit 9`,
      env: [{ name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'token', key: 'token' } } }],
    },
    'shows-secret': {
      command: 'echo "the token is $TOKEN"; sleep 1; exit 9',
      env: [{ name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'token', key: 'shown' } } }],
    },
    'lacks-secret': {
      command: 'true',
      env: [{ name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'no-such-secret', key: 'token' } } }],
    },
    'has-mounts': {
      command: `cat ${snapshotPath}/src/file ${depsPath}/file ${buildPath}/file
        for dir in ${snapshotPath} ${depsPath} ${buildPath}; do touch $dir/new 2>&1; done; exit 9`,
      runAsRoot: true,
      mounts: [
        { name: 'snapshot', source: join(sources, 'snapshot') },
        { name: 'workspace-deps', source: join(sources, 'result-deps') },
        { name: 'workspace-build', source: join(sources, 'build') },
      ],
    },
    'lacks-memory': { command: 'cat /dev/zero | tail -c 400000000; exit 9', instance: { memory: '128MiB' } },
    'mounts-in-a-mount': {
      command: `cat ${snapshotPath}/src/file; exit 9`,
      mounts: [
        { name: 'snapshot', source: join(sources, 'snapshot') },
        { name: 'inner', source: join(sources, 'build'), path: `${snapshotPath}/src` },
      ],
    },
    'mounts-in-a-mount-that-has-no-place': {
      command: 'true',
      mounts: [
        { name: 'snapshot', source: join(sources, 'snapshot') },
        { name: 'inner', source: join(sources, 'build'), path: `${snapshotPath}/none` },
      ],
    },
    'mounts-outside': { command: 'true', mounts: [{ name: 'snapshot', source: '/etc' }] },
    'mounts-a-link-outside': {
      command: 'true',
      mounts: [{ name: 'snapshot', source: join(sources, 'to-etc') }],
    },
    'mounts-nothing': {
      command: 'true',
      mounts: [{ name: 'snapshot', source: join(sources, 'no-such-directory') }],
    },
    'mounts-on-the-programs-of-root': {
      command: 'true',
      mounts: [{ name: 'tools', source: join(sources, 'a'), path: '/nix/store' }],
    },
    'lacks-image': { command: 'true', image: 'pikaci/no-such-image' },
    'lacks-profile': { command: 'true', instance: { profiles: ['default', 'no-such-profile'] } },
    'wants-another-profile': { command: 'true', instance: { profiles: ['host-network'] } },
    'wants-another-image': { command: 'true', image: 'somebody/else' },
    'wants-a-vm': { command: 'true', instance: { type: 'VirtualMachine' } },
  };
}

let bench: Bench;
let cluster: Cluster;
let sightings: Promise<Sightings>;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true, hosts: 2 });
  for (const host of bench.hosts) {
    await addSource(host, 'snapshot', { 'src/file': 'a snapshot\n' });
    await addSource(host, 'build', { file: 'a build\n' });
    await mkdir(join(host.sources, 'store'), { mode: 0o755 });
    // Staged outputs are links into the Nix store.
    await addSource(host, 'store/0123-deps', { file: 'some deps\n' });
    await symlink(join(host.sources, 'store/0123-deps'), join(host.sources, 'result-deps'));
    await symlink('/etc', join(host.sources, 'to-etc'));
  }
  cluster = await Cluster.start(bench, {
    hosts: {
      'by-socket': { via: 'Socket', labels: { via: 'Socket' } },
      'by-sudo': { via: 'Sudo', labels: { via: 'Sudo' } },
    },
  });
  // By standard input: an argument would be seen below.
  await cluster.applyObjects({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'token', namespace: 'ci' },
    stringData: { token: secret, shown: token },
  });
  const jobs = ways.flatMap((way) =>
    Object.entries(jobsFor(hostOf(way))).map(([name, job]): [string, JobInput] => [
      nameOf(way, name),
      {
        image: `pikaci/${way.guest}`,
        hostSelector: { matchLabels: { via: way.via } },
        ...job,
      },
    ]),
  );
  const shown = new AbortController();
  sightings = lookFor(token, shown.signal);
  await cluster.applyAll(Object.fromEntries(jobs));
  void Promise.all(ways.map((way) => cluster.finished(nameOf(way, 'shows-secret'), 110)))
    // Tests of their own tell of a job that does not end.
    .catch(() => undefined)
    .finally(() => shown.abort());
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
});

/** Where a text was seen on the hosts, and what was looked at. */
interface Sightings {
  seen: string[];
  /** Processes whose command line was the runner's: jobs while they were launched and ran. */
  runners: number;
  instances: Set<string>;
}

/** Looks for a text in every command line of this machine, and in the configuration of every instance, again and again. */
async function lookFor(text: string, stop: AbortSignal): Promise<Sightings> {
  const found: Sightings = { seen: [], runners: 0, instances: new Set() };
  while (!stop.aborted) {
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (line.includes(text)) found.seen.push(line);
      if (line.includes('pikaci-incus-run')) found.runners += 1;
    }
    for (const { incus, project } of bench.hosts) {
      // Each with its expanded_config: what `incus config show --expanded` shows.
      const all = (await incus.query(`/1.0/instances?recursion=1&project=${project}`)) as { name: string }[];
      for (const instance of all) {
        found.instances.add(instance.name);
        if (JSON.stringify(instance).includes(text)) found.seen.push(instance.name);
      }
    }
    await delay(50);
  }
  return found;
}

function hostOf({ via }: Way): BenchHost {
  const [bySocket, bySudo] = bench.hosts;
  return (via === 'Socket' ? bySocket : bySudo)!;
}

function nameOf({ via, guest }: Way, name: string): string {
  return `${guest}-${via.toLowerCase()}-${name}`;
}

describe.each(ways)('through $via, in a $guest guest, a job', (way) => {
  const ended = (name: string) => cluster.finished(nameOf(way, name), 110);
  const output = async (name: string): Promise<string> => {
    const { status } = await ended(name);
    expect(status, JSON.stringify(status)).toMatchObject({ exitCode: 9, failure: { class: 'Test' } });
    return status?.failure?.excerpt ?? '';
  };

  test('that exits with 0 is Complete', async () => {
    const { status } = await ended('passes');
    expect(status).toMatchObject({ phase: 'Succeeded', exitCode: 0, attempt: 1 });
    expect(status?.failure).toBeUndefined();
    expect(conditionsOf(status)).toMatchObject({ Complete: 'True', Ready: 'True' });
    expect(Object.keys(conditionsOf(status))).not.toContain('Failed');
  });

  test('that exits with 3 is Failed with that code, by its own fault, and its log kept', async () => {
    const { status } = await ended('fails');
    expect(status).toMatchObject({
      phase: 'Failed',
      exitCode: 3,
      attempt: 1,
      failure: { class: 'Test', reason: 'NonZeroExitCode', excerpt: 'about to fail\n' },
      log: { bytes: 'about to fail\n'.length, truncated: false },
    });
    expect(conditionsOf(status)).toMatchObject({ Failed: 'True', Ready: 'False', Stalled: 'True' });
  });

  test('that takes longer than it may is stopped by the guest, and its log kept', async () => {
    const { status } = await ended('times-out');
    expect(status).toMatchObject({ phase: 'Failed', attempt: 1 });
    expect(status?.failure).toMatchObject({ class: 'Timeout', reason: 'DeadlineExceeded' });
    expect(status?.failure?.excerpt).toMatch(/^before the limit\n/);
    expect(status?.failure?.excerpt).not.toContain('never');
  });

  test('that reaches its limit of memory says so, and which one it has', async () => {
    const { status } = await ended('lacks-memory');
    expect(status).toMatchObject({
      phase: 'Failed',
      exitCode: 9,
      failure: { class: 'Test', reason: 'OutOfMemory' },
    });
    expect(status?.failure?.message).toContain('the memory limit of 128MiB was reached');
  });

  test('runs as root where it asks for that', async () => {
    expect(await output('is-root')).toBe('0\n');
  });

  test('runs as pikaci otherwise, who may write to /artifacts', async () => {
    expect(await output('is-pikaci')).toBe('1000\n100\n/home/pikaci\n');
  });

  test('gets its environment to the byte', async () => {
    const lines = (await output('has-env')).trimEnd().split('\n');
    const values = lines.map((line) => Buffer.from(line, 'hex').toString());
    expect(values).toEqual(Object.values(awkward));
  });

  test('gets the value of a Secret, and nobody else does', async () => {
    const hex = (await output('has-secret')).trim();
    expect(Buffer.from(hex, 'hex').toString()).toBe(secret);
    const words = 'a secret';
    expect(JSON.stringify(cluster.controller.log())).not.toContain(words);
    expect(JSON.stringify(await cluster.job(nameOf(way, 'has-secret')))).not.toContain(words);
  });

  test('that prints the value of a Secret shows stars in its place', async () => {
    expect(await output('shows-secret')).toBe('the token is ***\n');
  });

  test('sees three mounts, one of them a link, and can write to none', async () => {
    const lines = (await output('has-mounts')).trimEnd().split('\n');
    expect(lines.slice(0, 3)).toEqual(['a snapshot', 'some deps', 'a build']);
    expect(lines.slice(3)).toHaveLength(3);
    for (const line of lines.slice(3)) expect(line).toContain('Read-only file system');
  });

  test('sees a mount inside another one, which has a directory for it', async () => {
    expect(await output('mounts-in-a-mount')).toBe('a build\n');
  });

  test.each([
    ['lacks-secret', 'SecretNotFound', 'no-such-secret'],
    ['mounts-outside', 'SourceNotAllowed', '/etc'],
    ['mounts-a-link-outside', 'SourceNotAllowed', 'leads outside'],
    ['mounts-nothing', 'SourceNotFound', 'no-such-directory'],
    ['mounts-in-a-mount-that-has-no-place', 'MountPointNotFound', 'has no directory none'],
    ['mounts-on-the-programs-of-root', 'MountPathNotAllowed', '/nix/store'],
    ['lacks-image', 'ImageNotFound', 'pikaci/no-such-image'],
    ['lacks-profile', 'ProfileNotFound', 'no-such-profile'],
    ['wants-another-profile', 'ProfileNotAllowed', 'host-network'],
    ['wants-another-image', 'ImageNotAllowed', 'somebody/else'],
    ['wants-a-vm', 'InstanceTypeUnsupported', 'VirtualMachine'],
  ])('that %s is refused as Config with the reason %s', async (name, reason, mentioned) => {
    const { status } = await ended(name);
    expect(status).toMatchObject({ phase: 'Failed', failure: { class: 'Config', reason } });
    expect(status?.failure?.message).toContain(mentioned);
    expect(status?.exitCode).toBeUndefined();
    expect(status?.timings?.map((timing) => timing.phase)).not.toContain('Running');
    expect(conditionsOf(status)).toMatchObject({ Failed: 'True', Stalled: 'True' });
  });
});

describe('the value of a Secret that jobs print', () => {
  test('is in no command line of the hosts but that of Incus itself, and in no instance, while they are launched and run', async () => {
    const { seen, runners, instances } = await sightings;
    expect(seen).toEqual([]);
    expect(runners).toBeGreaterThan(0);
    for (const way of ways) {
      const { status } = await cluster.job(nameOf(way, 'shows-secret'));
      expect(instances).toContain(status?.instance?.name);
    }
  });

  test('is in no Event, no CiJob, and no line of the log, at its finest level', async () => {
    await sightings;
    const [events, jobs] = [
      await cluster.kubectl('get', 'events', '-o', 'json'),
      await cluster.kubectl('get', 'cijobs', '-o', 'json'),
    ];
    expect(events).toContain(nameOf(ways[0], 'shows-secret'));
    expect(cluster.controller.log().map(({ level }) => level)).toContain('trace');
    for (const text of [events, jobs, JSON.stringify(cluster.controller.log())]) {
      expect(text).not.toContain(token);
    }
  });
});

describe('of all these jobs', () => {
  test('each took one attempt, and nothing is left on the hosts', async () => {
    const names = Object.keys(jobsFor(bench.host));
    for (const way of ways) {
      for (const name of names) {
        const { status } = await cluster.finished(nameOf(way, name), 110);
        expect(status?.attempts, nameOf(way, name)).toBeUndefined();
      }
    }
    for (const host of bench.hosts) expect(await cluster.instances(host)).toEqual([]);
  });

  test('none cost the API server more than five writes, and one to tell that it waits in the queue', async () => {
    const writes = await bench.controlPlane.writesTo({ resource: 'cijobs', namespace: 'ci' });
    const ofController = writes.filter((write) => write.userAgent?.startsWith('cijob-controller/'));
    const byJob = Map.groupBy(ofController, (write) => write.objectRef?.name ?? '');
    expect(byJob.size).toBe(ways.length * Object.keys(jobsFor(bench.host)).length);
    for (const [name, itsWrites] of byJob) {
      const { status } = await cluster.job(name);
      const waited = status?.timings?.some((timing) => timing.phase === 'Pending') ?? false;
      expect(itsWrites.length, `${name}: ${JSON.stringify(status)}`).toBeLessThanOrEqual(waited ? 6 : 5);
    }
  });

  test('none was refused a write: one writer, no conflicts', async () => {
    const writes = await bench.controlPlane.writesTo({ resource: 'cijobs', namespace: 'ci' });
    expect(writes.filter((write) => (write.responseStatus?.code ?? 0) >= 400)).toEqual([]);
  });

  test('each has its conditions in order, each about the current generation', async () => {
    const { status, metadata } = await cluster.job(nameOf(ways[0], 'passes'));
    const conditions = status?.conditions ?? [];
    expect(conditions.map((condition) => condition.type)).toEqual([
      ...['Admitted', 'DevicesConfigured', 'Started', 'AgentReady', 'RunnerStarted', 'RunnerExited'],
      ...['Collected', 'Complete', 'Ready'],
    ]);
    for (const condition of conditions) expect(condition.observedGeneration).toBe(metadata.generation);
  });
});

test('a missing image is refused within 5 s on a host that is not busy', async () => {
  await cluster.apply('refused-at-once', { command: 'true', image: 'pikaci/no-such-image' });
  const { metadata, status } = await cluster.finished('refused-at-once');
  expect(status?.failure).toMatchObject({ class: 'Config', reason: 'ImageNotFound' });
  const took = Date.parse(status?.completionTime ?? '') - Date.parse(metadata.creationTimestamp);
  expect(took).toBeLessThan(5_000);
});

function conditionsOf(status: CiJob['status']): Record<string, string> {
  return Object.fromEntries((status?.conditions ?? []).map(({ type, status: is }) => [type, is]));
}
