import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { run } from '../support/command.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { addSource, startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually } from './support/cluster.ts';
import { ControllerProcess } from './support/controller.ts';
import { systemNamespace } from './support/hosts.ts';

/* The controller as a process: what it tells of itself, and what becomes of jobs when it dies, ends or has a rival. */

let bench: Bench;
let cluster: Cluster;
let dir: string;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true });
  cluster = await Cluster.start(bench);
  dir = await makeTempDir('second');
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
  await clearAway(dir);
});

/** Says how often it ran, and takes long enough for something to happen meanwhile. */
const counts = (seconds: number) =>
  `echo ran >> /artifacts/ran; sleep ${seconds}; cat /artifacts/ran; exit 7`;
const ranOnce = { exitCode: 7, attempt: 1, failure: { class: 'Test', excerpt: 'ran\n' } };

async function lease(): Promise<{ holderIdentity?: string; leaseTransitions?: number }> {
  const args = ['get', 'lease', 'cijob-controller', '--namespace', systemNamespace, '-o', 'json'];
  const { spec } = JSON.parse(await bench.controlPlane.kubectlOk(args)) as { spec: object };
  return spec;
}

/** The value of a series without labels, or with exactly these. */
async function metric(controller: ControllerProcess, series: string): Promise<number | undefined> {
  const { body } = await controller.get('/metrics');
  const line = body.split('\n').find((one) => one.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.split(' ').at(-1));
}

describe('a controller that runs', () => {
  test('says that it is alive and ready', async () => {
    expect(await cluster.controller.get('/healthz')).toMatchObject({ status: 200 });
    expect(await cluster.controller.get('/readyz')).toMatchObject({ status: 200 });
    expect(await cluster.controller.get('/nonsense')).toMatchObject({ status: 404 });
  });

  test('counts and times what it does, under the names that dashboards know', async () => {
    await cluster.applyAll({
      counted: { command: 'true' },
      'counted-too': { command: 'exit 3' },
      'counted-refused': { command: 'true', image: 'pikaci/no-such-image' },
    });
    for (const name of ['counted', 'counted-too', 'counted-refused']) await cluster.finished(name);
    const { body } = await cluster.controller.get('/metrics');
    const names = new Set([...body.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1]));
    for (const name of [
      'controller_runtime_reconcile_total',
      'controller_runtime_reconcile_errors_total',
      'controller_runtime_reconcile_time_seconds',
      'workqueue_depth',
      'workqueue_adds_total',
      'workqueue_queue_duration_seconds',
      'workqueue_work_duration_seconds',
      'workqueue_retries_total',
      'workqueue_unfinished_work_seconds',
      'rest_client_requests_total',
      'leader_election_master_status',
      'cijob_jobs',
      'cijob_finished_total',
      'cijob_queue_seconds',
      'cijob_provision_seconds',
      'cijob_boot_seconds',
      'cijob_run_seconds',
      'cijob_collect_seconds',
      'cijob_incus_commands_total',
      'cijob_event_lag_seconds',
      'cijob_observation_age_seconds',
      'cijob_host_slots',
      'cijob_orphans_removed_total',
    ]) {
      expect(names, name).toContain(name);
    }
    for (const [series, value] of [
      ['leader_election_master_status{name="cijob-controller"}', 1],
      ['cijob_finished_total{result="Succeeded",class="None",lane="other"}', 1],
      ['cijob_finished_total{result="Failed",class="Test",lane="other"}', 1],
      ['cijob_finished_total{result="Failed",class="Config",lane="other"}', 1],
      ['cijob_host_slots{host="build-1",state="capacity"}', 4],
      ['cijob_run_seconds_count{lane="other"}', 2],
      ['cijob_incus_commands_total{host="build-1",verb="create",outcome="done"}', 2],
    ] as const) {
      expect(await metric(cluster.controller, series), series).toBe(value);
    }
    // No series is about one job.
    expect(body).not.toContain('counted');
    expect(body).not.toMatch(/cijob-[0-9a-f]{12}/);
  });

  test('writes one line of JSON a command to its log, that can be repeated by hand', () => {
    const lines = cluster.controller.log().filter((line) => line.job === 'ci/counted' && line.verb);
    expect(lines.map((line) => line.verb)).toEqual([
      ...['resolve', 'create', 'launch', 'collect', 'stop', 'delete'],
    ]);
    for (const line of lines) {
      expect(line).toMatchObject({ host: 'build-1', outcome: expect.any(String) as string });
      expect(line['incus']).toMatch(/incus .*--project/);
    }
  });
});

describe('what somebody else does to an instance', () => {
  const instances = new Map<string, string>();
  /** `incus VERB INSTANCE ARGS`, as an operator calls it. */
  const on = (verb: string, job: string, ...args: string[]) => {
    const { incus, project } = bench.host;
    return incus.incusOk(['--project', project, ...verb.split(' '), instances.get(job) ?? '', ...args]);
  };

  /** Waits until one of these kinds is told by an Event about the job, and counted. */
  async function told(job: string, ...kinds: string[]): Promise<void> {
    const look = async () => {
      const all = await cluster.kubectl('get', 'events.events.k8s.io', '-o', 'json');
      const { items } = JSON.parse(all) as {
        items: { reason: string; note: string; regarding: { name: string } }[];
      };
      return items.filter(({ regarding }) => regarding.name === job);
    };
    const seen = await eventually(
      look,
      (events) => kinds.some((kind) => events.some(({ reason }) => reason === `Instance${kind}`)),
      `${job}: ${kinds.join(' or ')}`,
      10,
    );
    const kind = kinds.find((one) => seen.some(({ reason }) => reason === `Instance${one}`)) ?? '';
    expect(seen.find(({ reason }) => reason === `Instance${kind}`)?.note).toBe(
      `instance ${instances.get(job) ?? ''} on host build-1 changed without the controller: ${kind}`,
    );
    expect(
      await metric(cluster.controller, `cijob_drift_total{host="build-1",kind="${kind}"}`),
    ).toBeGreaterThan(0);
  }

  beforeAll(async () => {
    const source = await addSource(bench.host, 'drift', { file: 'here' });
    const mounts = [{ name: 'snapshot', source }];
    const endless = { command: 'sleep 600', timeoutSeconds: 900, infraRetryLimit: 0 };
    await cluster.applyAll({
      changed: {
        command: 'cd /; until [ -e /artifacts/go ]; do sleep 0.1; done; exit 7',
        infraRetryLimit: 0,
        mounts,
      },
      stopped: endless,
      deleted: endless,
      restarted: endless,
    });
    for (const name of ['changed', 'stopped', 'deleted', 'restarted']) {
      instances.set(name, (await cluster.until(name, 'RunnerStarted')).status?.instance?.name ?? '');
    }
  });

  test('which Incus holds to the limits of its job', async () => {
    const shown = parse(await on('config show', 'changed')) as { config: object; devices: object };
    expect(shown).toMatchObject({
      config: { 'limits.cpu': '1', 'limits.memory': '256MiB', 'limits.processes': '4096' },
      devices: { root: { type: 'disk', path: '/', size: '20GiB' } },
    });
  });

  test('is told while it is paused, and the job goes on when that is over', async () => {
    await on('pause', 'changed');
    await told('changed', 'Paused');
    expect((await cluster.job('changed')).status).toMatchObject({ phase: 'Running', attempt: 1 });
    await on('resume', 'changed');
  });

  test('is told when a device is taken away: the command that runs decides what comes of it', async () => {
    await on('config device remove', 'changed', 'pikaci-snapshot');
    await told('changed', 'DevicesChanged');
    expect((await cluster.job('changed')).status).toMatchObject({ phase: 'Running', attempt: 1 });
    await on('exec', 'changed', '--', 'touch', '/artifacts/go');
    expect((await cluster.finished('changed')).status).toMatchObject({ exitCode: 7, attempt: 1 });
  });

  test.each([
    { how: 'stop --force', job: 'stopped', kinds: ['Stopped'], reasons: ['InstanceStopped'] },
    // For the next two, Incus stops it first. The controller may take it away before the other half happens.
    {
      how: 'delete --force',
      job: 'deleted',
      kinds: ['Deleted', 'Stopped'],
      reasons: ['InstanceGone', 'InstanceStopped'],
    },
    {
      how: 'restart --force',
      job: 'restarted',
      kinds: ['Restarted', 'Stopped'],
      reasons: ['BootstrapFailed', 'InstanceStopped'],
    },
  ])(
    'is told when it is $job, and ends the attempt by the infrastructure',
    async ({ how, job, kinds, reasons }) => {
      await on(how, job).catch((error: unknown) => {
        if (kinds.length === 1) throw error;
      });
      await told(job, ...kinds);
      const { status } = await cluster.finished(job);
      expect(status).toMatchObject({ phase: 'Failed', attempt: 1, failure: { class: 'Infrastructure' } });
      expect(reasons).toContain(status?.failure?.reason);
      expect(await cluster.instances()).not.toContain(instances.get(job));
    },
  );
});

describe('a controller that is killed and started again', () => {
  test('takes up the jobs that run, and those that ended meanwhile, and runs none twice', async () => {
    await cluster.applyAll({
      'outlives-busybox': { command: counts(8) },
      'outlives-systemd': { command: counts(8), image: 'pikaci/systemd' },
      'ends-meanwhile': { command: counts(1) },
    });
    const names = ['outlives-busybox', 'outlives-systemd', 'ends-meanwhile'];
    for (const name of names) await cluster.until(name, 'RunnerStarted');
    const { name: instance = '' } = (await cluster.job('ends-meanwhile')).status?.instance ?? {};
    await cluster.controller.daemon.kill9();
    const { incus, project } = bench.host;
    await eventually(
      () => incus.readFile(project, instance, '/artifacts/result.json'),
      (text) => text.includes('exit_code'),
      'a command has ended while nobody looked',
      30,
    );
    await cluster.controller.daemon.start();
    for (const name of names) expect((await cluster.finished(name)).status, name).toMatchObject(ranOnce);
    expect(await cluster.instances()).toEqual([]);
  });

  test('takes up the jobs whose instances were being made', async () => {
    const names = ['made-1', 'made-2', 'made-3', 'made-4'];
    await cluster.applyAll(Object.fromEntries(names.map((name) => [name, { command: counts(1) }])));
    for (const name of names) {
      await cluster.reached(name, 'admitted', ({ status }) => status?.instance !== undefined);
    }
    await cluster.controller.daemon.kill9();
    await cluster.controller.daemon.start();
    for (const name of names) expect((await cluster.finished(name)).status, name).toMatchObject(ranOnce);
    expect(await cluster.instances()).toEqual([]);
  });

  test('takes up what was deleted and cancelled while it was dead', async () => {
    await cluster.applyAll({
      'deleted-meanwhile': { command: 'sleep 600' },
      'cancelled-meanwhile': { command: 'sleep 600' },
    });
    for (const name of ['deleted-meanwhile', 'cancelled-meanwhile']) {
      await cluster.until(name, 'RunnerStarted');
    }
    await cluster.controller.daemon.kill9();
    await cluster.kubectl('delete', 'cijob', 'deleted-meanwhile', '--wait=false');
    await cluster.change('cancelled-meanwhile', { cancel: true });
    await cluster.controller.daemon.start();
    await cluster.gone('deleted-meanwhile');
    expect((await cluster.finished('cancelled-meanwhile')).status?.phase).toBe('Cancelled');
    expect(await cluster.instances()).toEqual([]);
  });
});

describe('of two controllers', () => {
  let second: ControllerProcess;
  const become = (controller: ControllerProcess, seconds: number) =>
    eventually(
      () => Promise.resolve(controller.log()),
      (log) => log.some((line) => line.msg === 'reconciling'),
      'the second controller leads',
      seconds,
    );

  test('one leads, and the other waits, ready to take over', async () => {
    second = await ControllerProcess.start({
      kubeconfig: bench.controlPlane.adminKubeconfig,
      namespace: systemNamespace,
      logFile: join(dir, 'second.log'),
      startedBy: 'waiting for the lease',
    });
    await cluster.apply('of-two', { command: 'true' });
    expect((await cluster.finished('of-two')).status?.phase).toBe('Succeeded');
    expect(await metric(cluster.controller, 'leader_election_master_status{name="cijob-controller"}')).toBe(
      1,
    );
    expect(await metric(second, 'leader_election_master_status{name="cijob-controller"}')).toBe(0);
    expect(await second.get('/readyz')).toMatchObject({ status: 200 });
    expect(second.log().filter((line) => line.verb !== undefined)).toEqual([]);
  });

  test('the one that leads, told to stop, exits with 0 and hands over at once, in the middle of a job', async () => {
    await cluster.apply('handed-over', { command: counts(6) });
    await cluster.until('handed-over', 'RunnerStarted');
    const { holderIdentity: before } = await lease();
    await cluster.controller.daemon.stop({ signal: 'SIGTERM' });
    expect(cluster.controller.daemon.exitCode).toBe(0);
    // A lease that was not released would stand for 15 s.
    await become(second, 10);
    expect((await lease()).holderIdentity).not.toBe(before);
    expect((await cluster.finished('handed-over')).status).toMatchObject(ranOnce);
  });

  test('the one that waits takes over when the other is killed, in the middle of a job', async () => {
    const standby = await ControllerProcess.start({
      kubeconfig: bench.controlPlane.adminKubeconfig,
      namespace: systemNamespace,
      logFile: join(dir, 'third.log'),
      startedBy: 'waiting for the lease',
    });
    try {
      await cluster.apply('taken-over', { command: counts(4) });
      await cluster.until('taken-over', 'RunnerStarted');
      await second.daemon.kill9();
      await become(standby, 40);
      expect((await cluster.finished('taken-over')).status).toMatchObject(ranOnce);
      expect(await cluster.instances()).toEqual([]);
    } finally {
      await standby.stop();
    }
    expect(standby.daemon.exitCode).toBe(0);
  });

  test('the last one that is told to stop leaves the lease to nobody', async () => {
    expect((await lease()).holderIdentity ?? '').toBe('');
  });
});

test('a controller without a usable kubeconfig says so, and exits with an error but no stack trace', async () => {
  const main = join(import.meta.dirname, '../../controller/main.ts');
  const missing = join(dir, 'no-such-kubeconfig');
  const ended = await run(process.execPath, [main, 'controller', '--kubeconfig', missing]);
  expect(ended.code).toBeGreaterThan(0);
  expect(ended.stderr).toContain('no-such-kubeconfig');
  expect(ended.stderr).not.toMatch(/^ +at /m);
});
