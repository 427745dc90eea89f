import { spawn } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { CiJob } from '../../controller/api/cijob.ts';
import { filesIn } from '../support/archives.ts';
import { freePort } from '../support/free-port.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { addSource, startBench, type Bench } from './support/bench.ts';
import { manifest, type JobInput } from './support/cluster.ts';
import { hostManifests, type HostInput } from './support/hosts.ts';

/* `cijob run` as a person or a script sees it: a process with two outputs and an exit code, on a real Incus over SSH. */

const main = join(import.meta.dirname, '../../controller/main.ts');

const secretManifest = {
  ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'token' } },
  data: { token: Buffer.from('let me in').toString('base64') },
};

let bench: Bench;
let dir: string;
beforeAll(async () => {
  bench = await startBench();
  dir = await makeTempDir('run');
});
afterAll(async () => {
  await bench.stop();
  await clearAway(dir);
});
afterEach(async () => {
  expect(await bench.host.incus.instances(bench.host.project)).toEqual([]);
});

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Starts `cijob run` with the given files. */
function start(args: readonly string[]) {
  const child = spawn(process.execPath, [main, 'run', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const code = new Promise<number | null>((resolve) => child.once('close', resolve));
  const ended = Promise.all([code, text(child.stdout), text(child.stderr)]).then(
    ([exitCode, stdout, stderr]): Ended => ({ code: exitCode, stdout, stderr }),
  );
  /** Resolves when one of the outputs has said something. */
  const says = (stream: 'stdout' | 'stderr', words: string) =>
    new Promise<void>((resolve, reject) => {
      let said = '';
      child[stream].on('data', (chunk: Buffer) => {
        said += chunk.toString();
        if (said.includes(words)) resolve();
      });
      child.once('close', () => reject(new Error(`ended without saying "${words}": ${said}`)));
    });
  return { child, ended, says };
}

async function file(name: string, ...objects: readonly object[]): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, objects.map((object) => JSON.stringify(object)).join('\n---\n'));
  return path;
}

async function hostFlags(input: HostInput = {}): Promise<string[]> {
  const [, host] = await hostManifests('build-1', bench.host, input);
  const path = await file(`host-${JSON.stringify(input).replaceAll(/\W+/g, '-')}.yaml`, host!);
  return ['--host', path, '--identity', bench.host.sshd.privateKeyFile];
}

/** Runs one job to its end. */
async function run(job: JobInput, input: HostInput = {}, ...flags: string[]): Promise<Ended> {
  return start(['-f', await file('job.yaml', manifest('job', job)), ...(await hostFlags(input)), ...flags])
    .ended;
}

describe.each([
  { via: 'Socket', guest: 'busybox' },
  { via: 'Socket', guest: 'systemd' },
  { via: 'Sudo', guest: 'busybox' },
  { via: 'Sudo', guest: 'systemd' },
] as const)('cijob run through $via in a $guest guest', ({ via, guest }) => {
  const image = `pikaci/${guest}`;

  test('writes the log to standard output, phases to standard error, and exits with 0', async () => {
    const ended = await run({ image, command: 'echo the log; echo of both >&2' }, { via });
    expect(ended).toMatchObject({ code: 0, stdout: 'the log\nof both\n' });
    for (const phase of ['Provisioning', 'Running', 'Succeeded']) expect(ended.stderr).toContain(phase);
  });

  test("exits with the command's own code", async () => {
    const ended = await run({ image, command: 'echo the log; exit 3' }, { via });
    expect(ended).toMatchObject({ code: 3, stdout: 'the log\n' });
    expect(ended.stderr).toContain('exit code 3');
  });

  test('exits with 124 when the command takes too long, its log shown', async () => {
    const ended = await run({ image, command: 'echo the log; sleep 60', timeoutSeconds: 1 }, { via });
    expect(ended.code).toBe(124);
    expect(ended.stdout).toMatch(/^the log\n/);
    expect(ended.stderr).toContain('did not end within 1 s');
  });
});

test('shows the log while it is written', async () => {
  const job = manifest('job', { command: 'echo first; sleep 3; echo last' });
  const { ended, says } = start(['-f', await file('job.yaml', job), ...(await hostFlags())]);
  await says('stdout', 'first');
  const heard = performance.now();
  expect(await ended).toMatchObject({ code: 0, stdout: 'first\nlast\n' });
  expect(performance.now() - heard).toBeGreaterThan(1_500);
});

test('shows every byte of a long log once', async () => {
  const ended = await run({ command: 'seq 1 200000' });
  expect(ended.code).toBe(0);
  expect(ended.stdout).toBe(Array.from({ length: 200_000 }, (_, index) => `${index + 1}\n`).join(''));
});

test('saves what jobs leave, and the outcome stands where it cannot', async () => {
  const jobs = ['one', 'two'].map((name) =>
    manifest(name, { command: `echo ${name} >/artifacts/${name}.txt; exit 4`, artifacts: ['*.txt'] }),
  );
  const flags = ['-f', await file('jobs.yaml', ...jobs), ...(await hostFlags())];
  const { code, stderr } = await start([...flags, '--artifacts', join(dir, 'saved')]).ended;
  expect(code, stderr).toBe(4);
  for (const name of ['one', 'two']) {
    const files = await filesIn(await readFile(join(dir, 'saved', `${name}.tar.gz`)));
    expect(files.map((one) => [one.name, one.content.toString()])).toEqual([[`${name}.txt`, `${name}\n`]]);
  }
  const nowhere = await start([...flags, '--artifacts', join(dir, 'jobs.yaml/no-directory')]).ended;
  expect(nowhere.code).toBe(4);
  expect(nowhere.stderr).toContain('one.tar.gz: ENOTDIR');
});

test(
  'says what it does not save: files beyond the limit, globs that match nothing, a hurtful name',
  { timeout: 300_000 },
  async () => {
    const job = manifest('silent', {
      command: [
        'mkdir -p /artifacts/coverage /artifacts/reports; cd /artifacts',
        "echo x >reports/u.xml; echo x >'reports/C:x'; touch -d '2024-02-29 12:30:45' reports/u.xml",
        'for i in $(seq 1 2100); do echo $i >coverage/f$i.html; done',
      ].join('\n'),
      artifacts: ['reports/*', 'coverage/**', './reports/*.xml', 'reports/', '*.log'],
    });
    const saved = join(dir, 'silent');
    const flags = ['-f', await file('silent.yaml', job), ...(await hostFlags()), '--artifacts', saved];
    const { code, stderr } = await start(flags).ended;
    expect(code, stderr).toBe(0);
    const said = stderr.split('\n').filter((line) => line.includes('artifacts: '));
    expect(said.map((line) => line.replace(/^.*?artifacts: /, ''))).toEqual([
      expect.stringMatching(/^saved as .*silent\.tar\.gz, \d+ bytes$/),
      expect.stringMatching(
        /^left out 101: files beyond the limit of their number: coverage\/.* and 98 more$/,
      ),
      'left out 1: names that are not safe on every system: reports/C:x',
      'no file matches reports/ (a directory; "reports/**" is all that is in it), "*.log"',
    ]);
    expect(await filesIn(await readFile(join(saved, 'silent.tar.gz')))).toHaveLength(2000);
  },
);

test('takes a list, saves the artifacts of a job with the longest of names, and names another', async () => {
  const long = `${'a'.repeat(250)}.bc`;
  const command = "echo hi >/artifacts/x; touch -d '2024-02-29 12:30:45' /artifacts/x";
  const jobs = [long, 'x'].map((name) => manifest(name, { command, artifacts: ['x'] }));
  const items = jobs.map(({ metadata, ...rest }, index) =>
    index === 0
      ? { metadata, ...rest }
      : { metadata: { ...metadata, name: undefined, generateName: 'gen-' }, ...rest },
  );
  const path = join(dir, 'list.yaml');
  const list = JSON.stringify({
    apiVersion: 'v1',
    kind: 'List',
    items: [...items, { apiVersion: 'v1', kind: 'Pod' }],
  });
  await writeFile(path, Buffer.from(`\uFEFF${list}`, 'utf16le'));
  const saved = join(dir, 'list');
  const { code, stderr } = await start(['-f', path, ...(await hostFlags()), '--artifacts', saved]).ended;
  expect(code, stderr).toBe(0);
  expect(stderr).toContain('skipped 1 Pod');
  const [, name = ''] = /CiJob gen- is named (gen-[a-z0-9]{5})\n/.exec(stderr) ?? [];
  const archives = (await readdir(saved)).sort();
  expect(archives).toEqual([expect.stringMatching(/^a{231}-[0-9a-f]{16}\.tar\.gz$/), `${name}.tar.gz`]);
  for (const archive of archives) {
    const [only] = await filesIn(await readFile(join(saved, archive)));
    expect(only).toMatchObject({ name: 'x', header: { mtime: new Date('2024-02-29T12:30:45Z') } });
  }
});

test('mounts what the host allows, and gives a Secret of the same file', async () => {
  const source = await addSource(bench.host, 'snapshot', { hello: 'hello\n' });
  const job = manifest('job', {
    command: 'cat hello; printf %s "$TOKEN"',
    mounts: [{ name: 'snapshot', source }],
    env: [{ name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'token', key: 'token' } } }],
  });
  const ended = await start(['-f', await file('job.yaml', job, secretManifest), ...(await hostFlags())])
    .ended;
  expect(ended).toMatchObject({ code: 0, stdout: 'hello\nlet me in' });
  expect(ended.stderr).not.toContain('let me in');
});

test('-o json prints the finished jobs and nothing else', async () => {
  const ended = await run({ command: 'echo the log; exit 3' }, {}, '-o', 'json');
  expect(ended.code).toBe(3);
  const [job] = JSON.parse(ended.stdout) as CiJob[];
  expect(job?.status).toMatchObject({ phase: 'Failed', exitCode: 3, failure: { excerpt: 'the log\n' } });
});

test('shows the logs of several jobs line by line, and the end of the one that failed again', async () => {
  const jobs = [
    manifest('good', { command: 'echo good; echo end' }),
    manifest('bad', { command: 'echo the reason; exit 3' }),
  ];
  const ended = await start(['-f', await file('jobs.yaml', ...jobs), ...(await hostFlags())]).ended;
  expect(ended.code).toBe(3);
  expect(ended.stdout.split('\n').sort()).toEqual(['', 'bad  | the reason', 'good | end', 'good | good']);
  expect(ended.stdout.indexOf('good | good')).toBeLessThan(ended.stdout.indexOf('good | end'));
  expect(ended.stderr).toMatch(/bad failed, Test: NonZeroExitCode; its log ends with:\n {2}the reason\n$/);
});

test('runs several jobs, and exits with the code of the first that failed', async () => {
  const jobs = [0, 5, 6].map((code) => manifest(`exits-${code}`, { command: `exit ${code}` }));
  const ended = await start(['-f', await file('jobs.yaml', ...jobs), ...(await hostFlags())]).ended;
  expect(ended.code).toBe(5);
  for (const name of ['exits-0', 'exits-5', 'exits-6']) expect(ended.stderr).toContain(name);
});

describe('an invalid manifest is refused with exit code 64 and what is wrong, not where in our code', () => {
  const job = manifest('job', { command: 'true' });
  test.each([
    ['a wrong type', JSON.stringify({ ...job, spec: { ...job.spec, command: 5 } }), 'spec.command'],
    ['an unknown field', JSON.stringify({ ...job, spec: { ...job.spec, comand: 'x' } }), 'comand'],
    ['an unknown kind', JSON.stringify({ ...job, kind: 'Pod' }), 'Pod'],
    ['broken YAML', 'spec: [', 'job.yaml'],
    ['nothing', '', 'holds no object'],
    ['no job', JSON.stringify(secretManifest), 'no CiJob'],
  ])('%s', async (_what, content, mentioned) => {
    const path = join(dir, 'job.yaml');
    await writeFile(path, content);
    const ended = await start(['-f', path, ...(await hostFlags())]).ended;
    expect(ended).toMatchObject({ code: 64, stdout: '' });
    expect(ended.stderr).toContain(mentioned);
    expect(ended.stderr).not.toMatch(/^ +at /m);
  });

  test('a file that is not there', async () => {
    const ended = await start(['-f', join(dir, 'no-such-file.yaml')]).ended;
    expect(ended.code).toBe(64);
    expect(ended.stderr).toContain('no-such-file.yaml');
    expect(ended.stderr).not.toMatch(/^ +at /m);
  });
});

describe('a host that cannot be reached ends it with exit code 70, and says why', () => {
  test.each([
    ['nothing listens', async () => ({ ssh: { port: await freePort() } }), 'ECONNREFUSED'],
    ['no such socket', () => ({ ssh: { socketPath: '/no/such/unix.socket' } }), '/no/such/unix.socket'],
    ['another host key', async () => ({ ssh: { hostKeys: [await otherHostKey()] } }), 'host key'],
    ['no such project', () => ({ spec: { project: 'no-such-project' } }), 'no-such-project'],
  ])('%s', async (_what, input, mentioned) => {
    const ended = await run({ command: 'true' }, await input());
    expect(ended).toMatchObject({ code: 70, stdout: '' });
    expect(ended.stderr).toContain(mentioned);
    expect(ended.stderr).not.toMatch(/^ +at /m);
  });
});

test('without a private key it says how to give one', async () => {
  const [, host] = await hostManifests('build-1', bench.host);
  const files = [
    await file('job.yaml', manifest('job', { command: 'true' })),
    await file('host.yaml', host!),
  ];
  const ended = await start(['-f', files[0]!, '--host', files[1]!]).ended;
  expect(ended.code).toBeGreaterThan(0);
  expect(ended.stderr).toContain('--identity');
  expect(ended.stderr).not.toMatch(/^ +at /m);
});

async function otherHostKey(): Promise<string> {
  const key = await bench.host.sshd.hostKey();
  // A well-formed key with other bytes.
  return key.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A'));
}

describe('a job that does not fit the host ends it with exit code 78, and says why', () => {
  test.each([
    ['no such image', { image: 'pikaci/no-such-image' }, 'pikaci/no-such-image'],
    ['a source outside', { mounts: [{ name: 'snapshot', source: '/etc' }] }, '/etc'],
    ['no virtual machines', { instance: { type: 'VirtualMachine' } }, 'VirtualMachine'],
    ['no such profile', { instance: { profiles: ['no-such-profile'] } }, 'no-such-profile'],
  ] as const)('%s', async (_what, job, mentioned) => {
    const ended = await run({ command: 'true', ...(job as Partial<JobInput>) });
    expect(ended).toMatchObject({ code: 78, stdout: '' });
    expect(ended.stderr).toContain(mentioned);
  });
});

describe('a signal cancels the job and ends it with exit code 130', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)(
    '%s, while the command runs, its log so far shown',
    async (signal) => {
      const job = manifest('job', { command: 'echo here; sleep 600' });
      const { child, ended, says } = start(['-f', await file('job.yaml', job), ...(await hostFlags())]);
      await says('stdout', 'here');
      child.kill(signal);
      expect(await ended).toMatchObject({ code: 130, stdout: 'here\n' });
    },
  );

  test('SIGINT, while the instance is made', async () => {
    const job = manifest('job', { command: 'sleep 600', image: 'pikaci/systemd' });
    const { child, ended, says } = start(['-f', await file('job.yaml', job), ...(await hostFlags())]);
    await says('stderr', 'Provisioning');
    child.kill('SIGINT');
    expect((await ended).code).toBe(130);
  });

  test('SIGINT, while the job waits for a slot', async () => {
    const job = manifest('job', { command: 'true' });
    const flags = await hostFlags({ slots: 0 });
    const { child, ended, says } = start(['-f', await file('job.yaml', job), ...flags]);
    await says('stderr', 'place 1 of 1');
    child.kill('SIGINT');
    expect((await ended).code).toBe(130);
  });
});
