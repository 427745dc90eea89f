import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { addClusterCommands } from '../../controller/cli/cluster-commands.ts';
import { widthOf } from '../../controller/cli/width.ts';
import { run, type CommandResult } from '../support/command.ts';
import { answer, FakeApiServer, refuse } from '../support/fake-api-server.ts';
import type { FakeObject } from '../support/fake-api-store.ts';
import { freePort } from '../support/free-port.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const program = join(import.meta.dirname, '../../controller/main.ts');
const collection = 'ci.pikaci.dev/v1alpha1/cijobs';

describe('the subcommands that ask a cluster', () => {
  let dir: string;
  let kubeconfig: string;
  let api: FakeApiServer;

  beforeEach(async () => {
    dir = await makeTempDir('cli');
    api = await FakeApiServer.start();
    kubeconfig = join(dir, 'kubeconfig');
    await writeKubeconfig(api.url);
  });
  afterEach(async () => {
    await api.stop();
    await clearAway(dir);
  });

  const writeKubeconfig = (server: string) =>
    writeFile(
      kubeconfig,
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'c', cluster: { server, 'insecure-skip-tls-verify': true } }],
        users: [{ name: 'u', user: { token: 'very-secret-token' } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', namespace: 'ci' } }],
        'current-context': 'x',
      }),
    );

  /** The program as a process of its own, for what only a process shows. */
  const spawned = (...args: string[]): Promise<CommandResult> =>
    run(process.execPath, [program, ...args], { env: { KUBECONFIG: kubeconfig } });

  /** The same subcommands in this process, which does not take a second to start. */
  async function cijob(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const seen = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      vi.spyOn(process[stream], 'write').mockImplementation((chunk) => {
        seen[stream] += String(chunk);
        return true;
      });
    }
    vi.stubEnv('KUBECONFIG', kubeconfig);
    vi.stubEnv('CIJOB_LOG_SERVER', undefined);
    const command = new Command('cijob').exitOverride();
    addClusterCommands(command);
    try {
      await command.parseAsync(args, { from: 'user' });
      return { code: Number(process.exitCode ?? 0), ...seen };
    } finally {
      process.exitCode = undefined;
      vi.unstubAllEnvs();
      vi.restoreAllMocks();
    }
  }

  function put(
    name: string,
    status: object = {},
    more: { namespace?: string; metadata?: object } = {},
  ): FakeObject {
    const { namespace = 'ci', metadata = {} } = more;
    return api.store.create(collection, {
      apiVersion: 'ci.pikaci.dev/v1alpha1',
      kind: 'CiJob',
      metadata: { name, namespace, ...metadata },
      spec: { command: 'make test', instance: { type: 'Container', image: 'pikaci/dev' } },
      status,
    });
  }

  const stored = (name: string) => api.store.get(collection, { namespace: 'ci', name });
  const claim = (type: string, status: string, reason: string, message: string) => {
    return { type, status, reason, message, lastTransitionTime: '2026-01-01T00:00:00Z' };
  };
  const succeeded = {
    phase: 'Succeeded',
    host: 'build-1',
    exitCode: 0,
    duration: '1.2s',
    completionTime: '2026-01-01T00:00:09Z',
    conditions: [claim('Complete', 'True', 'Succeeded', 'ok')],
  };
  const failed = {
    phase: 'Failed',
    host: 'build-1',
    attempt: 2,
    instance: { name: 'cijob-000000000000' },
    exitCode: 3,
    startTime: '2026-01-01T00:00:00Z',
    completionTime: '2026-01-01T00:00:08Z',
    timings: [
      { phase: 'Provisioning', startedAt: '2026-01-01T00:00:00Z', finishedAt: '2026-01-01T00:00:02Z' },
      { phase: 'Running', startedAt: '2026-01-01T00:00:02Z', finishedAt: '2026-01-01T00:00:08Z' },
    ],
    attempts: [
      {
        attempt: 1,
        host: 'build-0',
        reason: 'HostLost',
        message: 'gone',
        finishedAt: '2026-01-01T00:00:00Z',
      },
    ],
    log: { bytes: 9, truncated: false },
    failure: {
      class: 'Test',
      reason: 'NonZeroExitCode',
      message: 'the command exited with code 3',
      excerpt: 'all \u001b[31mred\u001b[0m\n',
    },
    conditions: [claim('Failed', 'True', 'NonZeroExitCode', 'the command exited with code 3')],
  };
  const waiting = {
    phase: 'Pending',
    conditions: [claim('Admitted', 'False', 'NoFreeSlot', 'all hosts are full; place 3 of 7 in the queue')],
  };

  it('get shows a table of what there is, without colours where nobody would see them', async () => {
    put('a', succeeded);
    put('b', failed);
    put('c', waiting);
    put('elsewhere', {}, { namespace: 'other' });
    const { code, stdout, stderr } = await cijob('get');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.split('\n').map((line) => line.replace(/ +\d+d$/, ''))).toEqual([
      'NAME   PHASE       REASON            HOST      EXIT   RAN    AGE',
      'a      Succeeded                     build-1   0      1.2s',
      'b      Failed      NonZeroExitCode   build-1   3',
      'c      Pending     NoFreeSlot',
      '',
    ]);
    expect((await cijob('get', '-A')).stdout).toMatch(/^other +elsewhere +Pending/m);
    expect((await cijob('get', 'b', '-o', 'wide')).stdout).toMatch(
      /^b .* cijob-000000000000 +2 +Test +the command exited with code 3$/m,
    );
    expect((await cijob('get', '-o', 'name')).stdout).toBe('a\nb\nc\n');
    expect(await cijob('get', '-n', 'empty')).toMatchObject({
      code: 0,
      stdout: '',
      stderr: 'no CiJobs in namespace empty\n',
    });
  });

  it('get -o json prints objects as the API server has them', async () => {
    const object = put('a', { ...succeeded, unknownToUs: 1 });
    expect(JSON.parse((await cijob('get', 'a', '-o', 'json')).stdout)).toEqual(object);
    const list = JSON.parse((await cijob('get', '-o', 'json')).stdout) as object;
    expect(list).toMatchObject({ kind: 'List', items: [object] });
  });

  it('get --watch prints a line for each change until it is interrupted', async () => {
    put('a', waiting);
    const child = spawn(process.execPath, [program, 'get', '-w'], {
      env: { ...process.env, KUBECONFIG: kubeconfig },
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    const code = new Promise((resolve) => child.once('close', resolve));
    const until = async (pattern: RegExp) => {
      const deadline = performance.now() + 20_000;
      while (!pattern.test(text)) {
        if (performance.now() > deadline) throw new Error(`not seen: ${String(pattern)} in ${text}`);
        await delay(10);
      }
    };
    await until(/^a +Pending +NoFreeSlot/m);
    api.store.patch(
      collection,
      { namespace: 'ci', name: 'a' },
      { status: succeeded },
      'status',
      'application/merge-patch+json',
    );
    await until(/^a +Succeeded/m);
    child.kill('SIGINT');
    expect(await code).toBe(0);
  });

  it('describe tells the phases with their times, what was lost, and the end of the log', async () => {
    put('b', failed);
    const { code, stdout } = await cijob('describe', 'b');
    expect(code).toBe(0);
    expect(stdout).toContain('Failure:     Test: NonZeroExitCode: the command exited with code 3\n');
    expect(stdout).toContain('  Provisioning   2026-01-01T00:00:00Z   2.0s   |######                  |\n');
    expect(stdout).toContain('  Running        2026-01-01T00:00:02Z   6.0s   |      ##################|\n');
    expect(stdout).toContain('  1   build-0   2026-01-01T00:00:00Z   HostLost: gone\n');
    // What a guest wrote does not steer the terminal.
    expect(stdout).toContain('  all \uFFFD[31mred\uFFFD[0m\n');
    expect(stdout).not.toContain('\u001b');
  });

  it('describe tells why a job waits', async () => {
    put('c', waiting);
    expect((await cijob('describe', 'c')).stdout).toContain(
      'Waits: NoFreeSlot: all hosts are full; place 3 of 7 in the queue\n',
    );
    put('new');
    expect((await cijob('describe', 'new')).stdout).toContain('Waits: no controller has looked at it yet\n');
  });

  it('lets nothing through to a terminal that a guest or a host may have put into a message', async () => {
    const hostile = 'a\u001b]0;owned\u0007b\rc\bd\u009be\u202ef';
    const shown = 'a\uFFFD]0;owned\uFFFDb\uFFFDc\uFFFDd\uFFFDe\uFFFDf';
    put('failed', {
      ...failed,
      failure: { class: 'Test', reason: 'NonZeroExitCode', message: hostile, excerpt: hostile },
    });
    put('waits', {
      phase: 'Pending',
      conditions: [claim('Admitted', 'False', 'NoFreeSlot', hostile)],
    });
    const all = [
      await cijob('get', '-o', 'wide'),
      await cijob('describe', 'failed'),
      await cijob('describe', 'waits'),
    ].map(({ stdout }) => stdout);
    for (const stdout of all) expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
    expect(all[0]).toContain(shown);
    expect(all[1]).toContain(`NonZeroExitCode: a\uFFFD]0;owned\uFFFDb c`);
    expect(all[1]).toContain(`  ${shown}\n`);
    expect(all[2]).toContain('Waits: NoFreeSlot: a\uFFFD]0;owned\uFFFDb c\uFFFDd');
  });

  it('cancel sets spec.cancel, once', async () => {
    put('c', waiting);
    expect(await cijob('cancel', 'c')).toMatchObject({ code: 0, stdout: 'cijob c is being cancelled\n' });
    expect(stored('c')).toMatchObject({ spec: { cancel: true } });
    put('a', succeeded);
    expect(await cijob('cancel', 'a')).toMatchObject({
      code: 0,
      stdout: 'cijob a is over already: Succeeded\n',
    });
    expect(stored('a')['spec']).not.toHaveProperty('cancel');
  });

  it('retry makes a new job of a finished one, which GitOps tools do not take for theirs', async () => {
    const labels = {
      team: 'x',
      'app.kubernetes.io/instance': 'app',
      'kustomize.toolkit.fluxcd.io/name': 'k',
    };
    put('b', failed, { metadata: { labels, annotations: { note: 'y' } } });
    expect(await cijob('retry', 'b')).toMatchObject({ code: 0, stdout: 'b-retry-1\n' });
    expect(stored('b-retry-1')).toMatchObject({
      metadata: { annotations: { 'ci.pikaci.dev/retry-of': 'b' } },
      spec: { command: 'make test', cancel: false },
    });
    expect(stored('b-retry-1').metadata['labels']).toEqual({ team: 'x' });
    expect((await cijob('retry', 'b')).stdout).toBe('b-retry-2\n');
    put('c', waiting);
    expect(await cijob('retry', 'c')).toMatchObject({
      code: 1,
      stderr: 'cijob: cijob c is not over yet: it is Pending\n',
    });
  });

  it('retry makes a name that is one where it has to cut a long one', async () => {
    const long = `${'a'.repeat(244)}.${'b'.repeat(8)}`;
    put(long, failed);
    expect((await cijob('retry', long)).stdout).toBe(`${'a'.repeat(244)}-retry-1\n`);
  });

  it('hold and release say so by annotations, of which there is one at a time', async () => {
    put('c', waiting);
    expect((await cijob('hold', 'c', '--seconds', '60')).code).toBe(0);
    expect(Object.keys(stored('c').metadata['annotations'] as object)).toEqual(['ci.pikaci.dev/hold-until']);
    expect((await cijob('release', 'c')).code).toBe(0);
    expect(Object.keys(stored('c').metadata['annotations'] as object)).toEqual(['ci.pikaci.dev/release']);
    put('a', succeeded);
    expect(await cijob('hold', 'a')).toMatchObject({
      code: 1,
      stderr: 'cijob: cijob a is over, and its instance gone\n',
    });
  });

  it('logs prints the end of the log from the status where there is no log server', async () => {
    put('b', failed);
    api.fault = ({ path }, response) =>
      path.includes('/services/') &&
      answer(response, 403, {
        kind: 'Status',
        message: 'services is forbidden',
        details: { kind: 'services' },
      });
    const told = await cijob('logs', 'b');
    expect(told).toMatchObject({ code: 0, stdout: 'all \u001b[31mred\u001b[0m\n' });
    expect(told.stderr).toMatch(
      /services is forbidden: the way to the controller is the right to "get" "services\/proxy" with the name "https:cijob-logs:https" in the namespace "cijob-system".*; this is the end/,
    );
    expect(api.requests.at(-1)?.path).toBe(
      '/api/v1/namespaces/cijob-system/services/https:cijob-logs:https/proxy/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/b/log',
    );
    await cijob('logs', 'b', '--controller-namespace', 'other');
    expect(api.requests.at(-1)?.path).toContain('/api/v1/namespaces/other/services/');
    put('c', waiting);
    expect(await cijob('logs', 'c')).toMatchObject({ code: 1, stdout: '' });
    await expect(cijob('logs', 'b', '--server', 'http://plain.invalid')).rejects.toThrow(
      'it must be https://',
    );
  });

  it('says what is wrong in one line, and nothing of a token', async () => {
    const line = /^cijob: [^\n]+\n$/;
    const missing = await cijob('describe', 'nope');
    expect(missing).toMatchObject({
      code: 1,
      stdout: '',
      stderr: 'cijob: there is no CiJob nope in namespace ci\n',
    });
    api.fault = (_request, response) => refuse(response, 403, 'Forbidden');
    const forbidden = await cijob('get');
    expect(forbidden.stderr).toMatch(line);
    expect(forbidden).toMatchObject({ code: 1, stdout: '' });
    expect((await cijob('get', '-w')).stderr).toMatch(line);
    await writeKubeconfig(`http://127.0.0.1:${await freePort()}`);
    const unreachable = await cijob('hosts');
    expect(unreachable.stderr).toMatch(line);
    expect(unreachable.code).toBe(1);
    for (const { stderr } of [missing, forbidden, unreachable])
      expect(stderr).not.toContain('very-secret-token');
  });

  it('ends as a process with the code and the one line', async () => {
    expect(await spawned('describe', 'nope')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: 'cijob: there is no CiJob nope in namespace ci\n',
    });
    expect(await spawned('get', '--no-such-flag')).toMatchObject({ code: 64, stdout: '' });
  });

  /** The program on a terminal of its own, 40 columns wide and 6 rows high. */
  const onTerminal = (...args: string[]) =>
    spawn(
      'script',
      ['-qec', `stty cols 40 rows 6; exec "${process.execPath}" "${program}" ${args.join(' ')}`, '/dev/null'],
      {
        // Of our own environment no more than this: where CI is set, for one, node takes a terminal for colourless.
        env: { PATH: process.env['PATH'], KUBECONFIG: kubeconfig, TERM: 'xterm' },
      },
    );

  it('get colours the phases on a terminal', async () => {
    put('a', succeeded);
    put('b', failed);
    const child = onTerminal('get');
    const seen = await text(child.stdout);
    expect(seen).toContain('\u001b[32mSucceeded\u001b[39m');
    expect(seen).toContain('\u001b[31mFailed\u001b[39m');
  });

  it('get --watch draws one table on a terminal, cut to its width by what is seen, and again when a job changes', async () => {
    put('a-name-of-some-length', waiting);
    put('b', failed);
    for (const letter of 'cdefgh') put(letter, waiting);
    const child = onTerminal('get', '-w');
    let seen = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (seen += chunk));
    const until = (pattern: RegExp) => expect.poll(() => seen, { timeout: 60_000 }).toMatch(pattern);
    await until(/\u001b\[J/);
    const [drawing = ''] = seen.split('\u001b[H')[1]?.split('\u001b[J') ?? [];
    const lines = drawing.trimEnd().split('\r\n');
    // Six rows: the last is left for the cursor, and one says what is not shown.
    expect(lines).toHaveLength(5);
    expect(lines[4]).toContain('… 5 more');
    for (const line of lines) expect(widthOf(line.replace('\u001b[K', ''))).toBeLessThanOrEqual(40);
    expect(lines[1]).toMatch(/^a-name-of-some-length {3}Pending {3}NoFree\u001b/);
    // As wide as the terminal: the colour of the phase took nothing of it.
    expect(lines[2]).toContain('\u001b[31mFailed\u001b[39m    NonZer');
    const name = { namespace: 'ci', name: 'a-name-of-some-length' };
    api.store.patch(collection, name, { status: succeeded }, 'status', 'application/merge-patch+json');
    await until(/a-name-of-some-length {3}\u001b\[32mSucceeded\u001b\[39m/);
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.stdin.write('\u0003');
    expect(await ended).toBe(0);
  }, 90_000);

  it('completes what can come next, as Cobra does, for the namespace that the line names', async () => {
    put('alpha', succeeded);
    put('beta', succeeded);
    put('elsewhere', {}, { namespace: 'other' });
    const complete = async (...words: string[]) => (await cijob('__complete', '--', ...words)).stdout;
    expect(await complete('des')).toMatch(/^describe\ttell all[^\n]+\n:4\n$/);
    expect(await complete('logs', '--fol')).toMatch(/^--follow\t[^\n]+\n:4\n$/);
    expect(await complete('logs', '-f', 'al')).toBe('alpha\n:4\n');
    expect(await complete('logs', '')).toBe('alpha\nbeta\n:4\n');
    expect(await complete('describe', '-n', 'other', '')).toBe('elsewhere\n:4\n');
    expect(await complete('describe', '--namespace=other', '')).toBe('elsewhere\n:4\n');
    expect(await complete('describe', 'alpha', '')).toBe(':4\n');
    expect(await complete('get', '-o', 'w')).toBe('wide\n:4\n');
    expect(await complete('get', '--kubeconfig', '')).toBe(':0\n');
    expect(await complete('completion', '')).toBe('bash\nzsh\nfish\n:4\n');
    expect(await complete('no-such', '')).toBe(':4\n');
    api.fault = (_request, response) => refuse(response, 403, 'Forbidden');
    expect(await cijob('__complete', '--', 'logs', '')).toEqual({ code: 0, stdout: ':4\n', stderr: '' });
  });
});
