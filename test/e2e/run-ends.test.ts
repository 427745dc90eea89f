import { spawn, type ChildProcess } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { clearAway } from '../support/left-under.ts';
import { NetworkNamespace } from '../support/network-namespace.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { eventually, manifest, type JobInput } from './support/cluster.ts';
import { hostManifests } from './support/hosts.ts';

/*
 * How `cijob run` ends where something goes wrong around it, on a real Incus over a real sshd: signals and outputs as a
 * shell and a terminal handle them, a host that goes away, `kill -9`. Nothing stays on the host, or what stays is
 * removed by the next run.
 */

const main = join(import.meta.dirname, '../../controller/main.ts');
const talks: JobInput = { command: 'for i in $(seq 1 400); do echo line $i; sleep 0.2; done' };

let bench: Bench;
let dir: string;
beforeAll(async () => {
  bench = await startBench();
  dir = await makeTempDir('run-ends');
});
afterAll(async () => {
  await bench.stop();
  await clearAway(dir);
});

const instances = () => bench.host.incus.instances(bench.host.project);
const allGone = () => eventually(instances, (names) => names.length === 0, 'no instance is left', 60);

/** Writes the manifests of a job and the host, and returns the arguments for them. */
async function argumentsFor(
  name: string,
  job: JobInput,
  ssh: { address?: string; port?: number } = {},
): Promise<string[]> {
  const [, host] = await hostManifests('build-1', bench.host, { slots: 16, ssh });
  const file = join(dir, `${name}.yaml`);
  await writeFile(file, [manifest(name, job), host].map((one) => JSON.stringify(one)).join('\n---\n'));
  return ['run', '-f', file, '--identity', bench.host.sshd.privateKeyFile];
}

/** Follows a process: what it says, and how it ends. */
function follow(child: ChildProcess) {
  const said = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (said.stdout += chunk));
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (said.stderr += chunk));
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal));
  });
  const says = (stream: 'stdout' | 'stderr', words: string) =>
    eventually(
      () => Promise.resolve(said[stream]),
      (text) => text.includes(words),
      `it says "${words}" (it said: ${said.stderr})`,
      60,
    );
  return { child, said, ended, says };
}

function start(args: readonly string[]) {
  return follow(spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] }));
}

/** Runs a line of bash, in which `cijob` is the program, in a process group of its own. */
function inShell(line: string, args: readonly string[]) {
  const words = [process.execPath, main, ...args].map((word) => `'${word}'`).join(' ');
  const script = `cijob() { ${words}; }; ${line}`;
  return follow(spawn('bash', ['-c', script], { stdio: ['ignore', 'pipe', 'pipe'], detached: true }));
}

describe('in a shell', () => {
  test('head takes one line: a quiet end, as by SIGPIPE, and nothing is left', async () => {
    const args = await argumentsFor('head', talks);
    const { ended, said } = inShell('cijob | head -1; echo "${PIPESTATUS[0]}"', args);
    expect(await ended).toBe(0);
    expect(said.stdout).toBe('line 1\n141\n');
    expect(said.stderr).not.toMatch(/^ +at /m);
    expect(await instances()).toEqual([]);
  });

  test('Ctrl-C reaches the whole group, tee first: the job is cancelled, and nothing is left', async () => {
    const args = await argumentsFor('tee', talks);
    const { child, ended, says, said } = inShell(
      `trap : INT; cijob 2>'${dir}/tee.err' | tee '${dir}/tee.out'; echo "\${PIPESTATUS[0]}"`,
      args,
    );
    await says('stdout', 'line 2');
    process.kill(-child.pid!, 'SIGINT');
    await ended;
    expect(said.stdout).toMatch(/\n130\n$/);
    expect(await instances()).toEqual([]);
  });

  test.each(['HUP', 'QUIT', 'TERM'])('SIG%s cancels the job, and nothing is left', async (signal) => {
    const args = await argumentsFor(signal.toLowerCase(), talks);
    const { child, ended, says } = start(args);
    await says('stdout', 'line 2');
    child.kill(`SIG${signal}` as NodeJS.Signals);
    expect(await ended).toBe(130);
    expect(await instances()).toEqual([]);
  });

  test('a full disk: one line, 74, and nothing is left', async () => {
    const { ended, said } = inShell('cijob >/dev/full', await argumentsFor('full', talks));
    expect(await ended).toBe(74);
    expect(said.stderr.match(/^cijob: standard output cannot be written: .*ENOSPC.*$/gm)).toHaveLength(1);
    expect(await instances()).toEqual([]);
  });
});

describe('sshd is killed and started again', () => {
  test.each(['Provisioning', 'Running', 'Collecting', 'Failed'])(
    'at %s: it says so, carries on, and the command ran once',
    async (phase) => {
      const { sshd } = bench.host;
      const args = await argumentsFor(`restart-${phase.toLowerCase()}`, {
        command: 'echo ran >>/artifacts/ran; sleep 3; cat /artifacts/ran; exit 7',
      });
      const { ended, says, said } = start(args);
      await says('stderr', ` ${phase}`);
      await sshd.halt();
      // After its last phase it may be done before the connection is cut.
      if (phase !== 'Failed' && phase !== 'Collecting') await says('stderr', 'connection lost');
      await delay(2_000);
      await sshd.restart();
      expect(await ended, said.stderr).toBe(7);
      expect(said.stdout).toBe('ran\n');
      const lost = said.stderr.match(/^host build-1: connection lost \(.+\); trying again until /gm) ?? [];
      expect(said.stderr.match(/^host build-1: connected again/gm) ?? []).toHaveLength(lost.length);
      expect(await instances()).toEqual([]);
    },
  );
});

describe('the host vanishes for good: every packet is lost', { timeout: 300_000 }, () => {
  const ends = { Provisioning: 70, Running: 70, Cancelling: 130 } as const;

  test('it ends all the same, says what may be left, and the next run removes that', async () => {
    const left = await Promise.all(
      Object.entries(ends).map(async ([moment, code]) => {
        await using network = await NetworkNamespace.start(bench.host.sshd.port);
        const { address, port } = network;
        const name = `vanish-${moment.toLowerCase()}`;
        const job = { ...talks, image: moment === 'Provisioning' ? 'pikaci/systemd' : 'pikaci/busybox' };
        const args = await argumentsFor(name, job, { address, port });
        const { child, ended, says, said } = start([...args, '--host-grace-seconds', '3']);
        await (moment === 'Provisioning' ? says('stderr', ' Provisioning') : says('stdout', 'line 2'));
        await network.drop();
        if (moment === 'Cancelling') child.kill('SIGINT');
        expect(await ended, said.stderr).toBe(code);
        expect(said.stderr).toMatch(
          /^host build-1: connection lost \(.+\); trying again until \d\d:\d\d:\d\d$/m,
        );
        expect(said.stderr).toMatch(/^host build-1: given up, after .+ out of reach$/m);
        const named = /^instance (cijob-\w+) may be left on host build-1/m.exec(said.stderr)?.[1];
        expect(named).toBeDefined();
        return named;
      }),
    );
    expect(left).toEqual(expect.arrayContaining(await instances()));
    const next = start(await argumentsFor('next', { command: 'true' }));
    expect(await next.ended).toBe(0);
    expect(next.said.stderr).toContain('was left behind by a `cijob run` that is dead');
    await allGone();
  });

  test('while it connects: exit code 70, and why', async () => {
    await using network = await NetworkNamespace.start(bench.host.sshd.port);
    const { address, port } = network;
    await network.drop();
    const { ended, said } = start(await argumentsFor('unseen', talks, { address, port }));
    expect(await ended).toBe(70);
    expect(said.stderr).toMatch(/^cijob: host build-1: /);
  });
});

test('what kill -9 leaves is removed by the next run, and what a live run has is not', async () => {
  const [killed, live] = [
    start(await argumentsFor('killed', talks)),
    start(await argumentsFor('live', { command: 'echo here; sleep 300', timeoutSeconds: 300 })),
  ];
  await Promise.all([killed.says('stdout', 'line 2'), live.says('stdout', 'here')]);
  killed.child.kill('SIGKILL');
  expect(await killed.ended).toBe('SIGKILL');
  expect(await instances()).toHaveLength(2);
  const next = start(await argumentsFor('next', { command: 'true' }));
  expect(await next.ended).toBe(0);
  expect(next.said.stderr.match(/left behind .*\(CiJob default\/killed\): removed$/gm)).toHaveLength(1);
  expect(await instances()).toHaveLength(1);
  live.child.kill('SIGINT');
  expect(await live.ended).toBe(130);
  expect(await instances()).toEqual([]);
});
