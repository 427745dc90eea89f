import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { speakTo } from '../support/incus-endpoint.ts';
import type { Answer, EventReader } from '../support/incus-scenarios/scenario.ts';
import { type GuestScript, resultPath, runnerPath } from '../support/incus-sim/guest-script.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { ManualClock } from '../support/manual-clock.ts';

let clock: ManualClock;
let sim: IncusSim;
let speak: ReturnType<typeof speakTo>;

/** A host whose time stands still until {@link pass}, with guests that follow one script. */
function simulate(guest: GuestScript, timings = { create: 1, start: 1, stop: 1, delete: 1 }): void {
  clock = new ManualClock();
  sim = new IncusSim({ clock, guest, timings });
  speak = speakTo(() => sim.connect());
}
beforeEach(() => simulate({}));
afterEach(() => sim.close());

/** Lets that many milliseconds of the host's time pass, a step at a time, and what happens meanwhile happen. */
async function pass(milliseconds: number, step = milliseconds / 4): Promise<void> {
  for (let left = milliseconds; left > 0; left -= step) {
    await settle();
    clock.advance(Math.min(step, left));
  }
  await settle();
}

/** Lets what is on its way arrive. */
async function settle(): Promise<void> {
  for (let count = 0; count < 10; count += 1) await turn();
}

async function create(
  type: 'container' | 'virtual-machine' = 'container',
  devices: Record<string, Record<string, string>> = {},
): Promise<string> {
  const name = speak.unique('g');
  const fingerprint = sim.store.addImage(name, type);
  const answer = await speak.request('POST', '/1.0/instances', {
    body: { name, type, source: { type: 'image', fingerprint }, devices, start: true },
  });
  expect(answer.status).toBe(202);
  await pass(4, 1);
  expect(sim.instance(name)?.power).toBe('Running');
  return name;
}

interface Launched {
  begun: Answer;
  /** The operation as it is now. */
  operation: () => Promise<{ status: string; err: string; metadata: { return?: number } | null }>;
}

async function exec(name: string, body: Record<string, unknown>): Promise<Launched> {
  const begun = await speak.request('POST', `/1.0/instances/${name}/exec`, { body });
  const { operation } = JSON.parse(begun.text) as { operation: string };
  await settle();
  return {
    begun,
    operation: async () =>
      (
        JSON.parse((await speak.request('GET', operation)).text) as {
          metadata: Awaited<ReturnType<Launched['operation']>>;
        }
      ).metadata,
  };
}

function launch(name: string, environment: Record<string, string> = {}): Promise<Launched> {
  return exec(name, {
    command: [
      'env',
      'PIKACI_INCUS_GUEST_COMMAND=make test',
      'PIKACI_INCUS_TIMEOUT_SECS=600',
      'PIKACI_INCUS_RUN_AS_ROOT=0',
      runnerPath,
    ],
    environment,
    'record-output': true,
  });
}

async function read(name: string, path: string): Promise<string> {
  return (await speak.request('GET', `/1.0/instances/${name}/files?path=${path}`)).text;
}

async function result(name: string): Promise<Record<string, unknown>> {
  return JSON.parse(await read(name, resultPath)) as Record<string, unknown>;
}

async function change(name: string, action: string): Promise<void> {
  await speak.request('PUT', `/1.0/instances/${name}/state`, { body: { action, force: true } });
  await pass(4, 1);
}

describe('the runner in a simulated guest keeps the contract', () => {
  test('runs the command once, logs, writes the result, and returns the code', async () => {
    simulate({ job: { runMs: 1000, exitCode: 3, log: 'one\ntwo\n' } });
    const name = await create();
    const { operation } = await launch(name);
    expect((await operation()).status).toBe('Running');
    expect(await read(name, '/artifacts/guest.log')).toBe('one\ntwo\n');
    expect((await speak.request('HEAD', `/1.0/instances/${name}/files?path=${resultPath}`)).status).toBe(404);
    await pass(1000);
    expect(await operation()).toMatchObject({ status: 'Success', metadata: { return: 3 } });
    expect(await result(name)).toEqual({
      schema_version: 1,
      status: 'failed',
      exit_code: 3,
      started_at: '2026-01-01T00:00:00.004Z',
      finished_at: '2026-01-01T00:00:01.004Z',
      message: 'test command exited with 3',
      timed_out: false,
    });
    expect(sim.runs(name)).toBe(1);
  });

  test('a second launch attaches, while the command runs and after, and never runs it again', async () => {
    simulate({ job: { runMs: 1000, exitCode: 5 } });
    const name = await create();
    const first = await launch(name);
    const second = await launch(name);
    await pass(1000);
    const third = await launch(name);
    for (const { operation } of [first, second, third])
      expect(await operation()).toMatchObject({ status: 'Success', metadata: { return: 5 } });
    expect(sim.runs(name)).toBe(1);
    expect(sim.lives.map(({ counts }) => counts)).toEqual([{ runs: 1, launches: 3 }]);
  });

  test('a command over its time is stopped by the guest, and the log stays', async () => {
    simulate({ job: { runMs: Infinity, log: 'still here\n' } });
    const name = await create();
    const { operation } = await launch(name);
    await pass(599_000);
    expect((await operation()).status).toBe('Running');
    await pass(1_000);
    expect((await operation()).metadata?.return).toBe(124);
    expect(await result(name)).toMatchObject({ status: 'failed', timed_out: true, exit_code: 124 });
    expect(await read(name, '/artifacts/guest.log')).toBe('still here\n');
  });

  test('an expected mount that is not there is a bootstrap error, and the command does not run', async () => {
    const source = '/srv/snapshot';
    sim.host.directory(source);
    const mounted = await create('container', { s: { type: 'disk', source, path: '/workspace/snapshot' } });
    const bare = await create();
    const environment = { PIKACI_INCUS_EXPECT_MOUNTS: '/workspace/snapshot' };
    await launch(mounted, environment);
    await launch(bare, environment);
    await pass(4);
    expect(await result(mounted)).toMatchObject({ status: 'passed' });
    expect(await result(bare)).toMatchObject({
      status: 'failed',
      exit_code: 2,
      bootstrap_error: '/workspace/snapshot is not a mount point',
    });
    expect([sim.runs(mounted), sim.runs(bare)]).toEqual([1, 0]);
  });

  test('a guest that reboots under the command says so when launched again, and does not run it twice', async () => {
    simulate({ job: { runMs: 100, then: 'reboot' } });
    const name = await create();
    const reader = await speak.events('type=lifecycle');
    const first = await launch(name);
    await pass(104, 2);
    expect((await first.operation()).metadata?.return).toBe(137);
    expect(actions(reader)).toContain('instance-restarted');
    const second = await launch(name);
    expect((await second.operation()).metadata?.return).toBe(2);
    expect(await result(name)).toMatchObject({
      bootstrap_error: 'the guest was restarted before the command ended',
    });
    expect([sim.runs(name), sim.instance(name)?.guest.boots]).toEqual([1, 2]);
    reader.close();
  });

  test('a guest that powers itself off is seen to stop; a runner that vanishes leaves no result', async () => {
    simulate({ job: { runMs: 100, then: 'poweroff' } });
    const halting = await create();
    const reader = await speak.events('type=lifecycle');
    await launch(halting);
    await pass(104, 2);
    expect(sim.instance(halting)?.power).toBe('Stopped');
    expect(actions(reader)).toContain('instance-shutdown');
    reader.close();
    sim.close();
    simulate({ job: { runMs: 100, then: 'vanish' } });
    const vanishing = await create();
    const { operation } = await launch(vanishing);
    await pass(100);
    expect((await operation()).metadata?.return).toBe(137);
    expect(sim.instance(vanishing)?.guest.files.get(resultPath)).toBeUndefined();
    const again = await launch(vanishing);
    expect((await again.operation()).metadata?.return).toBe(2);
    expect(sim.runs(vanishing)).toBe(1);
  });

  test('a hostile guest leaves what it likes in place of result and log', async () => {
    const name = await (async () => {
      simulate({
        job: {
          resultEntry: { kind: 'zeros', size: 2 ** 30 },
          logEntry: { kind: 'symlink', target: '/etc/passwd' },
        },
      });
      return create();
    })();
    await launch(name);
    await pass(4);
    const head = await speak.request('HEAD', `/1.0/instances/${name}/files?path=${resultPath}`);
    expect(head.headers['content-length']).toBe(String(2 ** 30));
    const part = await speak.request('GET', `/1.0/instances/${name}/files?path=${resultPath}`, {
      headers: { range: 'bytes=0-9' },
    });
    expect([part.status, part.text.length]).toEqual([206, 10]);
    const log = await speak.request('HEAD', `/1.0/instances/${name}/files?path=/artifacts/guest.log`);
    expect(log.headers['x-incus-type']).toBe('symlink');
  });

  test('an image without the runner fails the launch with 127', async () => {
    simulate({ hasRunner: false });
    const { operation } = await launch(await create());
    expect(await operation()).toMatchObject({
      status: 'Failure',
      err: 'Command not found',
      metadata: { return: 127 },
    });
  });

  test('the operation of an exec can be looked at for 5 s after its end', async () => {
    const { begun, operation } = await launch(await create());
    await pass(4);
    expect((await operation()).status).toBe('Success');
    await pass(4_990);
    expect((await operation()).status).toBe('Success');
    await pass(10);
    const { operation: url } = JSON.parse(begun.text) as { operation: string };
    expect((await speak.request('GET', url)).status).toBe(404);
  });
});

describe('virtual machines differ from containers as measured', () => {
  const processes = async (name: string) =>
    (
      JSON.parse((await speak.request('GET', `/1.0/instances/${name}/state`)).text) as {
        metadata: { processes: number };
      }
    ).metadata.processes;

  test('until the agent answers: no processes counted, an exec fails, files cannot be read', async () => {
    simulate({ bootMs: 20_000 });
    const name = await create('virtual-machine');
    expect(await processes(name)).toBe(-1);
    const early = await launch(name);
    expect(await early.operation()).toMatchObject({
      status: 'Failure',
      err: "VM agent isn't currently running",
      metadata: null,
    });
    expect((await speak.request('GET', `/1.0/instances/${name}/files?path=/etc/passwd`)).status).toBe(500);
    await pass(20_000);
    expect(await processes(name)).toBeGreaterThanOrEqual(0);
    const late = await launch(name);
    await pass(4);
    expect((await late.operation()).metadata?.return).toBe(0);
    expect(sim.runs(name)).toBe(1);
  });

  test('an image that announces itself turns the instance Ready, with an event; restarting takes that back', async () => {
    simulate({ bootMs: 500, announcesReady: true });
    const reader = await speak.events('type=lifecycle');
    const name = await create('virtual-machine');
    const status = async () =>
      (
        JSON.parse((await speak.request('GET', `/1.0/instances/${name}`)).text) as {
          metadata: { status: string };
        }
      ).metadata.status;
    expect(await status()).toBe('Running');
    await pass(500);
    expect(await status()).toBe('Ready');
    const ready = reader.seen.find(({ metadata }) => metadata['action'] === 'instance-ready');
    expect(ready?.metadata).toEqual({
      action: 'instance-ready',
      source: `/1.0/instances/${name}`,
      name,
      project: 'default',
    });
    await change(name, 'restart');
    expect(await status()).toBe('Running');
    reader.close();
  });

  test('an exec neither recorded nor attached is killed within a second; in a container it lives', async () => {
    const codes = [];
    for (const type of ['virtual-machine', 'container'] as const) {
      const { operation } = await exec(await create(type), { command: ['sleep', '2'] });
      await pass(2_000);
      codes.push((await operation()).metadata?.return);
    }
    expect(codes).toEqual([137, 0]);
  });

  test('a kill of incusd kills the front in a VM but not the command, which a second launch attaches to', async () => {
    for (const type of ['virtual-machine', 'container'] as const) {
      simulate({ job: { runMs: 10_000 } });
      const name = await create(type);
      await launch(name);
      await pass(1_000);
      sim.kill();
      await sim.restart();
      expect(sim.instance(name)?.guest.runner.running).toBe(true);
      const again = await launch(name);
      await pass(9_000);
      expect((await again.operation()).metadata?.return).toBe(0);
      expect(sim.runs(name)).toBe(1);
      sim.close();
    }
  });
});

test('after a GET of a FIFO, a reboot from inside never ends and holds everything up', async () => {
  simulate({ files: { '/artifacts/fifo': { kind: 'fifo' } } });
  const name = await create();
  const file = (path: string) =>
    speak.request('GET', `/1.0/instances/${name}/files?path=${path}`, { abortAfter: 50 });
  await expect(file('/artifacts/fifo')).rejects.toThrow();
  expect((await file('/etc/passwd')).status, 'until then all goes on').toBe(200);
  await exec(name, { command: ['reboot', '-f'], 'record-output': true });
  await pass(10);
  await expect(file('/etc/passwd')).rejects.toThrow();
  const removed = await speak.request('DELETE', `/1.0/instances/${name}`);
  const { operation } = JSON.parse(removed.text) as { operation: string };
  await settle();
  expect((await speak.request('GET', operation)).text).toContain('busy running a \\"restart\\" operation');
});

test('an instance half made when incusd died cannot be started, and can be deleted', async () => {
  simulate({}, { create: 100, start: 1, stop: 1, delete: 1 });
  const fingerprint = sim.store.addImage('bb');
  await speak.request('POST', '/1.0/instances', {
    body: { name: 'half', source: { type: 'image', fingerprint }, start: true },
  });
  await settle();
  sim.kill();
  await sim.restart();
  await pass(200);
  expect(sim.instance('half')?.power).toBe('Stopped');
  const started = await speak.request('PUT', '/1.0/instances/half/state', { body: { action: 'start' } });
  const { operation } = JSON.parse(started.text) as { operation: string };
  await settle();
  expect((await speak.request('GET', operation)).text).toContain('no such file or directory');
  await speak.request('DELETE', '/1.0/instances/half');
  await pass(4);
  expect(sim.names()).toEqual([]);
});

function actions(reader: EventReader): unknown[] {
  return reader.seen.map(({ metadata }) => metadata['action']);
}
