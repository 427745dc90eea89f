import { spawn } from 'node:child_process';
import { open, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FakeApiServer } from '../support/fake-api-server.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/*
 * Every subcommand as a process whose outputs fail: nobody reads them any more, or the disk is full. `cijob run`, which
 * has something to clean up, is in cli-run-ends.test.ts.
 */

const program = join(import.meta.dirname, '../../controller/main.ts');
const apiVersion = 'ci.pikaci.dev/v1alpha1';
const excerpt = 'a line of the log\n'.repeat(100);

/** What is asked for here is never answered. */
const heldPath = '/api/v1/namespaces/held';

let dir: string;
let api: FakeApiServer;
beforeAll(async () => {
  dir = await makeTempDir('outputs');
  api = await FakeApiServer.start();
  await writeFile(join(dir, 'job.json'), JSON.stringify(jobObject('build')));
  await writeFile(
    join(dir, 'kubeconfig'),
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'c', cluster: { server: api.url, 'insecure-skip-tls-verify': true } }],
      users: [{ name: 'u', user: { token: 'token' } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', namespace: 'ci' } }],
      'current-context': 'x',
    }),
  );
  for (let index = 0; index < 300; index += 1) {
    api.store.create(`${apiVersion}/cijobs`, { ...jobObject(`job-${index}`), status: failed });
  }
  // The controller's server, behind the API server's proxy: it sends without end, but for one job.
  api.fault = ({ path }, response) => {
    if (path === heldPath) return true;
    if (/\/job-299\/artifacts$/.test(path)) {
      response.writeHead(200, { 'x-cijob-attempt': '1', server: 'cijob-controller' }).end(excerpt);
      return true;
    }
    if (!/\/proxy\/.*\/(log|artifacts)$/.test(path)) return false;
    response.writeHead(200, { 'x-cijob-attempt': '1', server: 'cijob-controller' });
    const send = () => {
      while (!response.destroyed && response.write(excerpt));
    };
    response.on('drain', send);
    send();
    return true;
  };
});
afterAll(async () => {
  await api.stop();
  await clearAway(dir);
});

function jobObject(name: string) {
  return {
    apiVersion,
    kind: 'CiJob',
    metadata: { name, namespace: 'ci' },
    spec: { command: 'make test', instance: { type: 'Container', image: 'pikaci/dev' } },
  };
}

const failed = {
  phase: 'Failed',
  completionTime: '2026-01-01T00:00:08Z',
  failure: { class: 'Test', reason: 'NonZeroExitCode', message: 'the command exited with code 3', excerpt },
};

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** How an output fails: its reader is gone before the first byte, or what it is written to is full. */
type Failure = 'closed' | 'full';

/** Starts the program with outputs of which one may fail. */
async function start(
  args: readonly string[],
  failing: { stdout?: Failure; stderr?: Failure } = {},
  node: readonly string[] = [],
) {
  const full = await open('/dev/full', 'w');
  const to = (failure: Failure | undefined) => (failure === 'full' ? full.fd : 'pipe');
  const child = spawn(process.execPath, [...node, program, ...args], {
    stdio: ['ignore', to(failing.stdout), to(failing.stderr)],
    env: { ...process.env, KUBECONFIG: join(dir, 'kubeconfig') },
  });
  await full.close();
  if (failing.stdout === 'closed') child.stdout?.destroy();
  if (failing.stderr === 'closed') child.stderr?.destroy();
  const said = async (name: 'stdout' | 'stderr') => {
    const stream = child[name];
    return stream && failing[name] === undefined ? text(stream) : '';
  };
  const exit = new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.once('exit', (code, signal) => resolve([code, signal]));
  });
  const ended = Promise.all([exit, said('stdout'), said('stderr')]).then(
    ([[code, signal], stdout, stderr]): Ended => ({ code, signal, stdout, stderr }),
  );
  return { child, ended };
}

const commands: readonly (readonly string[])[] = [
  ['--help'],
  ['version'],
  ['completion', 'bash'],
  ['get'],
  ['get', '-o', 'json'],
  ['get', '--watch'],
  ['describe', 'job-1'],
  ['hosts', '-o', 'json'],
  ['cancel', 'job-1'],
  ['logs', 'job-1', '--follow'],
  ['artifacts', 'job-1', '-o', '-'],
  ['plan', '--offline', '-f', 'JOB'],
];
const cases = commands.map((args) => ({ name: args.join(' '), args }));
const withFile = (args: readonly string[]) =>
  args.map((arg) => (arg === 'JOB' ? join(dir, 'job.json') : arg));

describe.each(cases)('cijob $name', ({ args }) => {
  test.concurrent('ends without a word, as by SIGPIPE, when nobody reads its output any more', async () => {
    const { ended } = await start(withFile(args), { stdout: 'closed' });
    expect(await ended).toEqual({ code: 141, signal: null, stdout: '', stderr: '' });
  });

  test.concurrent('ends with one line and 74 when its output cannot be written', async () => {
    const { ended } = await start(withFile(args), { stdout: 'full' });
    expect(await ended).toEqual({
      ...{ code: 74, signal: null, stdout: '' },
      stderr: expect.stringMatching(/^cijob: standard output cannot be written: .*ENOSPC.*\n$/) as string,
    });
  });
});

test('a reader that has seen enough ends the rest, and a shell sees how', async () => {
  const line = `"${process.execPath}" "${program}" get -o json | head -1; echo "\${PIPESTATUS[0]}"`;
  const child = spawn('bash', ['-c', line], {
    env: { ...process.env, KUBECONFIG: join(dir, 'kubeconfig') },
  });
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  expect({ stdout, stderr }).toEqual({ stdout: '{\n141\n', stderr: '' });
});

test.each(['closed', 'full'] as const)(
  'without a standard error (%s) the exit code still says how it went',
  async (stderr) => {
    const { ended } = await start(['describe', 'no-such-job'], { stderr });
    expect(await ended).toMatchObject({ code: 1, signal: null, stdout: '' });
  },
);

test('everything is written that was printed, however slowly it is read', async () => {
  const { child, ended } = await start(['get', '-o', 'json']);
  child.stdout?.pause();
  // It has printed all of it long before.
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  const { code, stdout } = await ended;
  expect(code).toBe(0);
  expect((JSON.parse(stdout) as { items: unknown[] }).items).toHaveLength(300);
});

test.each(['SIGHUP', 'SIGQUIT'] as const)('%s ends what has nothing to clean up', async (signal) => {
  const { child, ended } = await start(['get', '--watch']);
  child.stdout?.once('data', () => child.kill(signal));
  expect(await ended).toMatchObject({ code: null, signal, stderr: '' });
});

test('a download that is interrupted when its file has its last name ends as any other', async () => {
  const late = `
    import promises from 'node:fs/promises';
    import { syncBuiltinESMExports } from 'node:module';
    const { rename } = promises;
    promises.rename = async (...names) => {
      await rename(...names);
      process.kill(process.pid, 'SIGTERM');
      return new Promise(() => setTimeout(() => undefined, 60_000));
    };
    syncBuiltinESMExports();`;
  const url = `data:text/javascript,${encodeURIComponent(late)}`;
  const file = join(dir, 'whole.tar.gz');
  const { ended } = await start(['artifacts', 'job-299', '-o', file], {}, ['--import', url]);
  expect(await ended).toMatchObject({ code: null, signal: 'SIGTERM', stderr: '' });
});

test('a controller whose shutdown hangs is ended by the second signal', async () => {
  const args = [
    '--kubeconfig',
    join(dir, 'kubeconfig'),
    '--namespace',
    'held',
    '--metrics-address',
    '127.0.0.1:0',
  ];
  const { child, ended } = await start(['controller', ...args]);
  await expect.poll(() => api.requests.some(({ path }) => path === heldPath), { timeout: 20_000 }).toBe(true);
  child.kill('SIGTERM');
  child.stderr?.on('data', (chunk: Buffer) => {
    if (chunk.includes('stopping')) child.kill('SIGTERM');
  });
  expect(await ended).toMatchObject({ code: null, signal: 'SIGTERM' });
});

test('a download that is interrupted leaves no part of it behind', async () => {
  const file = join(dir, 'saved.tar.gz');
  const { child, ended } = await start(['artifacts', 'job-1', '-o', file]);
  const names = () => readdir(dir);
  await expect.poll(names, { timeout: 20_000 }).toContainEqual(expect.stringContaining('.part'));
  child.kill('SIGINT');
  expect(await ended).toMatchObject({ code: null, signal: 'SIGINT', stderr: '' });
  expect((await names()).filter((name) => name.startsWith('saved'))).toEqual([]);
});
