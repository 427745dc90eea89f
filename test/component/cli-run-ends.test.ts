import { spawn } from 'node:child_process';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FarHost } from '../support/far-host.ts';
import type { JobScript } from '../support/incus-sim/guest-script.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/*
 * `cijob run` as a process that is asked to end, whose outputs fail, or whose host goes away. It cleans up first,
 * whatever becomes of its outputs, and it always ends.
 */

const program = join(import.meta.dirname, '../../controller/main.ts');
const patience = { timeout: 25_000 };
let dir: string;
let host: FarHost;
/** What the job's command does. */
let script: JobScript;

beforeEach(async () => {
  dir = await makeTempDir('run-ends');
  script = { runMs: Infinity, log: 'here\n' };
  host = await FarHost.start({ job: () => script });
  await writeFile(join(dir, 'key'), host.machine.privateKey);
});
afterEach(async () => {
  await host[Symbol.asyncDispose]();
  await clearAway(dir);
});

const job = {
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  metadata: { name: 'build' },
  spec: { command: 'make', instance: { type: 'Container', image: 'pikaci/dev' } },
};

const pieces = (count: number, every: number, text: string) =>
  Array.from({ length: count }, (_, at) => ({ atMs: at * every, text }));

interface Options {
  /** Options of node itself. */
  node?: readonly string[];
  subcommand?: 'run' | 'plan';
  flags?: readonly string[];
  stdout?: number;
}

/** Starts `cijob run`, or another subcommand, on the host. */
async function start({ node = [], subcommand = 'run', flags = [], stdout }: Options = {}) {
  const file = join(dir, 'all.yaml');
  await writeFile(file, [job, host.resource].map((one) => JSON.stringify(one)).join('\n---\n'));
  const args = [subcommand, '-f', file, '-i', join(dir, 'key'), ...flags];
  const child = spawn(process.execPath, [...node, program, ...args], {
    stdio: ['ignore', stdout ?? 'pipe', 'pipe'],
  });
  const said = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (said.stdout += chunk));
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (said.stderr += chunk));
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  const says = async (stream: 'stdout' | 'stderr', words: string) => {
    await expect.poll(() => said[stream], patience).toContain(words);
  };
  return { child, said, ended, says };
}

describe('asked to end, it cleans up first', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
    'by %s, and exits with 130',
    async (signal) => {
      const { child, ended, says, said } = await start();
      await says('stdout', 'here');
      child.kill(signal);
      expect(await ended).toEqual({ code: 130, signal: null });
      expect(said.stderr).toContain(`${signal}: cancelling`);
      expect(host.incus.names()).toEqual([]);
    },
  );

  test('by a terminal that is closed: two SIGHUP, and outputs that are gone', async () => {
    const { child, ended, says } = await start();
    await says('stdout', 'here');
    child.stdout?.destroy();
    child.stderr?.destroy();
    child.kill('SIGHUP');
    child.kill('SIGHUP');
    expect((await ended).code).toBe(130);
    expect(host.incus.names()).toEqual([]);
  });

  test('by Ctrl-C that a wrapper hands on, which comes twice', async () => {
    const { child, ended, says } = await start();
    await says('stdout', 'here');
    child.kill('SIGINT');
    setTimeout(() => child.kill('SIGINT'), 20);
    expect((await ended).code).toBe(130);
    expect(host.incus.names()).toEqual([]);
  });

  test('by a reader that has gone, and exits as by SIGPIPE', async () => {
    script = { runMs: Infinity, log: pieces(600, 50, 'line\n') };
    const { child, ended, says, said } = await start();
    await says('stdout', 'line');
    child.stdout?.destroy();
    expect(await ended).toEqual({ code: 141, signal: null });
    expect(said.stderr).toContain('Cancelled');
    expect(said.stderr).not.toMatch(/^ +at /m);
    expect(host.incus.names()).toEqual([]);
  });

  test('by a full disk, and exits with 74', async () => {
    const full = await open('/dev/full', 'w');
    const { ended, said } = await start({ stdout: full.fd });
    expect(await ended).toEqual({ code: 74, signal: null });
    await full.close();
    expect(said.stderr.match(/standard output cannot be written: .*ENOSPC/g)).toHaveLength(1);
    expect(host.incus.names()).toEqual([]);
  });

  test('although nobody takes what it prints', async () => {
    // More than a pipe holds and than is kept for a slow reader.
    script = { runMs: Infinity, log: pieces(200, 10, `${'long '.repeat(20_000)}\n`) };
    const { child, ended, says } = await start();
    await says('stdout', 'long');
    child.stdout?.pause();
    child.kill('SIGINT');
    await expect.poll(() => host.incus.names(), patience).toEqual([]);
    expect((await ended).code).toBe(130);
  });
});

test('without standard error it runs its job to the end', async () => {
  script = { runMs: 500, log: 'here\n', exitCode: 3 };
  const { child, ended, said } = await start();
  child.stderr?.destroy();
  expect((await ended).code).toBe(3);
  expect(said.stdout).toBe('here\n');
});

describe('a connection that is lost', () => {
  test('is made again: said once, and the job goes on', async () => {
    script = { runMs: 4_000, log: 'here\n', exitCode: 3 };
    const { ended, says, said } = await start();
    await says('stdout', 'here');
    host.network.faults.refuse = true;
    host.network.reset();
    await says('stderr', 'connection lost');
    // Several tries fail.
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    host.network.faults.refuse = false;
    expect((await ended).code).toBe(3);
    expect(said.stdout).toBe('here\n');
    expect(said.stderr.match(/^host far: .*$/gm)).toEqual([
      expect.stringMatching(/^host far: connection lost \(.+\); trying again until \d\d:\d\d:\d\d$/),
      expect.stringMatching(/^host far: connected again, after \d+\.\ds$/),
    ]);
    expect(host.incus.lives.map(({ counts }) => counts.runs)).toEqual([1]);
    expect(host.incus.names()).toEqual([]);
  });

  test.each(['Provisioning', 'Running', 'Collecting'] as const)(
    'for good, at %s, ends it with 70, and it says what may be left',
    { timeout: 60_000 },
    async (phase) => {
      script = { runMs: phase === 'Collecting' ? 500 : Infinity, log: 'here\n' };
      if (phase === 'Collecting') host.incus.faults.on({ path: /\/files$/ }, { kind: 'hang' }, 10);
      const { ended, says, said } = await start({ flags: ['--host-grace-seconds', '2'] });
      await says('stderr', ` ${phase}`);
      host.network.faults.refuse = true;
      host.network.reset();
      expect(await ended).toEqual({ code: 70, signal: null });
      expect(said.stderr).toMatch(/Failed +Infrastructure: HostLost: /);
      expect(said.stderr).toMatch(/^host far: given up, after \d+\.\ds out of reach$/m);
      expect(said.stderr).toMatch(/^instance cijob-\w+ may be left on host far/m);
    },
  );

  test('before the instance is taken away leaves the outcome as it is', async () => {
    script = { runMs: 500, log: 'here\n', exitCode: 3 };
    host.incus.faults.on({ method: 'PUT' }, { kind: 'hang' });
    const { ended, says, said } = await start({ flags: ['--host-grace-seconds', '2'] });
    await says('stderr', ' Failed');
    host.network.faults.refuse = true;
    host.network.reset();
    expect(await ended).toEqual({ code: 3, signal: null });
    expect(said.stderr).toMatch(/^instance cijob-\w+ may be left on host far/m);
  });

  test('would not end it without a word if nothing kept it alive', async () => {
    // What the clock's timers once were.
    const careless = 'const set = setTimeout; globalThis.setTimeout = (...all) => set(...all).unref();';
    const { ended, says, said } = await start({ node: ['--import', `data:text/javascript,${careless}`] });
    await says('stdout', 'here');
    host.network.faults.refuse = true;
    host.network.reset();
    expect(await ended).toEqual({ code: 70, signal: null });
    expect(said.stderr).toContain(
      'cijob: run waits for something that can no longer happen; please report this',
    );
  });

  test('does not keep whoever presses Ctrl-C', { timeout: 60_000 }, async () => {
    const { child, ended, says, said } = await start();
    await says('stdout', 'here');
    host.network.faults.refuse = true;
    host.network.reset();
    await says('stderr', 'connection lost');
    child.kill('SIGINT');
    expect(await ended).toEqual({ code: 130, signal: null });
    expect(said.stderr).toMatch(/^instance cijob-\w+ may be left on host far/m);
  });

  test('in silence, while it is made, ends it with 70', { timeout: 60_000 }, async () => {
    host.network.faults.blackHole = true;
    const { ended, said } = await start();
    expect(await ended).toEqual({ code: 70, signal: null });
    expect(said.stderr).toMatch(/^cijob: host far: /);
  });
});

describe('what a run left that was killed', () => {
  test('is removed by the next one on that host, which says so', async () => {
    const killed = await start();
    await killed.says('stdout', 'here');
    killed.child.kill('SIGKILL');
    expect(await killed.ended).toEqual({ code: null, signal: 'SIGKILL' });
    const [left] = host.incus.names();
    script = { runMs: 1 };
    const next = await start({ flags: ['--quiet'] });
    expect(await next.ended).toEqual({ code: 0, signal: null });
    expect(next.said.stderr).toBe(
      `instance ${left ?? ''} on host far was left behind by a \`cijob run\` that is dead (CiJob default/build): removed\n`,
    );
    expect(host.incus.names()).toEqual([]);
  });

  test('is told from what a live one has, which keeps it', async () => {
    const first = await start();
    await first.says('stdout', 'here');
    const held = host.incus.names();
    script = { runMs: 1 };
    const second = await start();
    expect((await second.ended).code).toBe(0);
    expect(second.said.stderr).not.toContain('left behind');
    expect(host.incus.names()).toEqual(held);
    first.child.kill('SIGINT');
    expect((await first.ended).code).toBe(130);
    expect(host.incus.names()).toEqual([]);
  });

  test('is not touched by `cijob plan`', async () => {
    const killed = await start();
    await killed.says('stdout', 'here');
    killed.child.kill('SIGKILL');
    await killed.ended;
    const left = host.incus.names();
    const plan = await start({ subcommand: 'plan' });
    expect((await plan.ended).code).toBe(0);
    expect(host.incus.names()).toEqual(left);
  });
});
