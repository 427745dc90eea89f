import os from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CiJob } from '../../controller/api/cijob.ts';
import type { IncusHost } from '../../controller/api/incushost.ts';
import { startBench, type Bench, type BenchHost } from './support/bench.ts';
import { Cluster, eventually, type JobInput } from './support/cluster.ts';

/*
 * Jobs that are cancelled, deleted, suspended, held or forgotten, at each moment of their lives. `by-socket` and
 * `by-sudo` run jobs; `full` has no slot at all, so that what is sent there waits; `single` has one.
 */

const hosts = ['by-socket', 'by-sudo', 'full', 'single'] as const;
type HostName = (typeof hosts)[number];
const ways = [
  { on: 'by-socket', guest: 'busybox' },
  { on: 'by-socket', guest: 'systemd' },
  { on: 'by-sudo', guest: 'busybox' },
  { on: 'by-sudo', guest: 'systemd' },
] as const;

let bench: Bench;
let cluster: Cluster;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true, hosts: hosts.length });
  const labels = (name: HostName) => ({ labels: { name } });
  cluster = await Cluster.start(bench, {
    hosts: {
      'by-socket': { via: 'Socket', ...labels('by-socket') },
      'by-sudo': { via: 'Sudo', ...labels('by-sudo') },
      full: { slots: 0, ...labels('full') },
      single: { slots: 1, ...labels('single') },
    },
  });
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
});

const hostOf = (name: HostName): BenchHost => bench.hosts[hosts.indexOf(name)]!;

const on = (name: HostName, job: JobInput): JobInput => ({
  hostSelector: { matchLabels: { name } },
  ...job,
});

const admitted = (name: string) =>
  cluster.reached(name, 'admitted', ({ status }) => status?.instance !== undefined);

/** Waits until the job's command has said that it runs. */
async function speaking(name: string, host: HostName): Promise<CiJob> {
  const job = await cluster.until(name, 'RunnerStarted');
  const { incus, project } = hostOf(host);
  const instance = job.status?.instance?.name ?? '';
  await eventually(
    () => incus.readFile(project, instance, '/artifacts/guest.log'),
    (text) => text.includes('here'),
    `${name} speaks`,
    30,
  );
  return job;
}

const forever = 'echo here; sleep 600';

async function expectCancelled(name: string): Promise<CiJob> {
  const job = await cluster.finished(name);
  expect(job.status).toMatchObject({
    phase: 'Cancelled',
    failure: { class: 'Cancelled', reason: 'Cancelled' },
  });
  const conditions = Object.fromEntries((job.status?.conditions ?? []).map((one) => [one.type, one]));
  expect(conditions['Failed']).toMatchObject({ status: 'True', reason: 'Cancelled' });
  expect(conditions['Ready']).toMatchObject({ status: 'False' });
  return job;
}

describe('before a job has a slot', () => {
  test('it says why it waits, and its place in the queue', async () => {
    await cluster.applyAll({
      'waits-1': on('full', { command: 'true' }),
      'waits-2': on('full', { command: 'true' }),
      'waits-first': on('full', { command: 'true', priority: 5 }),
    });
    const told = async (name: string) => {
      const told = ({ status }: CiJob) => status?.conditions?.find(({ type }) => type === 'Admitted');
      const job = await cluster.reached(name, 'told why', (one) => told(one) !== undefined);
      expect(job.status).toMatchObject({ phase: 'Pending' });
      expect(job.metadata.finalizers ?? []).toEqual([]);
      return told(job);
    };
    for (const name of ['waits-1', 'waits-2', 'waits-first']) {
      expect(await told(name)).toMatchObject({
        status: 'False',
        reason: 'NoFreeSlot',
        message: expect.stringMatching(/^full uses 0 of 0 slots; place \d of \d in the queue$/) as string,
      });
    }
  });

  test('it fails at once when it asks for more than the host has, as Incus says', async () => {
    const [cpus, memory] = [os.cpus().length, os.totalmem()];
    const host = await cluster.kubectl('get', 'incushost', 'single', '-o', 'json');
    const { status } = JSON.parse(host) as IncusHost;
    expect(status?.capacity).toEqual({
      cpu: cpus,
      memory: expect.stringMatching(/^[1-9][0-9]*MiB$/) as string,
      rootDisk: expect.stringMatching(/^[1-9][0-9]*MiB$/) as string,
    });
    const counted = Number.parseInt(status?.capacity?.memory ?? '') * 2 ** 20;
    expect(counted / memory).toBeGreaterThan(0.85);
    expect(counted / memory).toBeLessThan(0.95);
    await cluster.applyAll({
      'too-many-cpus': on('single', { command: 'true', instance: { cpu: cpus + 1 } }),
      'too-much-memory': on('single', { command: 'true', instance: { memory: '900TiB' } }),
      'too-large-a-disk': on('single', { command: 'true', instance: { rootDisk: '900TiB' } }),
    });
    for (const name of ['too-many-cpus', 'too-much-memory', 'too-large-a-disk']) {
      const job = await cluster.finished(name);
      expect(job.status).toMatchObject({ failure: { class: 'Config', reason: 'ExceedsCapacity' } });
      expect(job.status?.instance).toBeUndefined();
    }
  });

  test('deleting it lets it go at once', async () => {
    await cluster.kubectl('delete', 'cijob', 'waits-1', '--wait=true', '--timeout=10s');
    expect(await cluster.find('waits-1')).toBeUndefined();
  });

  test('cancelling it ends it', async () => {
    await cluster.change('waits-2', { cancel: true });
    const job = await expectCancelled('waits-2');
    expect(job.status?.instance).toBeUndefined();
  });

  test('it is given up after queueTimeoutSeconds', async () => {
    await cluster.apply('impatient', on('full', { command: 'true', queueTimeoutSeconds: 2 }));
    const { status } = await cluster.finished('impatient', 20);
    expect(status).toMatchObject({
      phase: 'Failed',
      failure: { class: 'Config', reason: 'QueueTimeout', message: 'no host had a free slot within 2 s' },
    });
  });

  test('a job for which there is no host says so, and is admitted when one comes', async () => {
    await cluster.apply('hostless', { command: 'true', hostSelector: { matchLabels: { size: 'large' } } });
    const waiting = await cluster.reached(
      'hostless',
      'told why',
      ({ status }) => status?.phase !== undefined,
    );
    const ready = waiting.status?.conditions?.find(({ type }) => type === 'Ready');
    expect(ready).toMatchObject({ reason: 'NoMatchingHost' });
    expect(ready?.message).toContain('size=large');
    await bench.controlPlane.kubectlOk(['label', 'incushost', 'by-socket', 'size=large']);
    expect((await cluster.finished('hostless')).status?.phase).toBe('Succeeded');
  });

  test('one that is suspended is not admitted, and is when it is resumed', async () => {
    await cluster.apply('suspended', on('by-socket', { command: 'true', suspend: true }));
    const waiting = await cluster.reached('suspended', 'told', ({ status }) => status?.phase !== undefined);
    expect(waiting.status?.phase).toBe('Pending');
    expect(waiting.status?.conditions).toContainEqual(
      expect.objectContaining({ type: 'Admitted', status: 'False', reason: 'Suspended' }),
    );
    await cluster.change('suspended', { suspend: false });
    expect((await cluster.finished('suspended')).status?.phase).toBe('Succeeded');
  });

  test('those that leave the queue leave their place to the next', async () => {
    await cluster.apply('occupant', on('single', { command: forever }));
    await cluster.until('occupant', 'RunnerStarted');
    for (const name of ['leaves-suspended', 'leaves-cancelled', 'leaves-deleted', 'next']) {
      await cluster.apply(name, on('single', { command: 'true' }));
      await cluster.reached(name, 'waiting', ({ status }) => status?.phase === 'Pending');
    }
    await cluster.change('leaves-suspended', { suspend: true });
    await cluster.change('leaves-cancelled', { cancel: true });
    await cluster.kubectl('delete', 'cijob', 'leaves-deleted', '--timeout=10s');
    await expectCancelled('leaves-cancelled');
    await cluster.change('occupant', { cancel: true });
    await expectCancelled('occupant');
    expect((await cluster.finished('next', 20)).status?.phase).toBe('Succeeded');
    await cluster.change('leaves-suspended', { suspend: false });
    expect((await cluster.finished('leaves-suspended', 20)).status?.phase).toBe('Succeeded');
  });
});

describe.each(['by-socket', 'by-sudo'] as const)('while the host %s is still asked', (host) => {
  const all = ['busybox', 'systemd'].flatMap((guest) =>
    ['cancel', 'delete'].map((how) => ({ name: `${how}-early-${guest}-${host}`, guest, how })),
  );

  /** Applies four jobs, waits for a moment of their lives, and calls them off while nothing can be heard of the host. */
  async function callOffWhen(moment: (names: string[]) => Promise<void>, prefix: string): Promise<void> {
    const names = all.map(({ name }) => `${prefix}${name}`);
    const jobs = all.map(({ name, guest }): [string, JobInput] => [
      `${prefix}${name}`,
      on(host, { command: forever, image: `pikaci/${guest}` }),
    ]);
    const { sshd } = hostOf(host);
    try {
      await cluster.applyAll(Object.fromEntries(jobs));
      await moment(names);
      await sshd.freezeConnections();
      for (const [index, { how }] of all.entries()) {
        const name = names[index] ?? '';
        if (how === 'cancel') await cluster.change(name, { cancel: true });
        else await cluster.kubectl('delete', 'cijob', name, '--wait=false');
      }
      for (const name of names) expect((await cluster.find(name))?.metadata.finalizers).toHaveLength(1);
    } finally {
      await sshd.thawConnections();
    }
    for (const [index, { how }] of all.entries()) {
      const name = names[index] ?? '';
      if (how === 'delete') await cluster.gone(name);
      else expect((await expectCancelled(name)).status?.attempt).toBe(1);
    }
    expect(await cluster.instances(hostOf(host))).toEqual([]);
  }

  test('for a slot just given, a job can be called off', async () => {
    await callOffWhen(async (names) => {
      for (const name of names) await admitted(name);
    }, 'a-');
  });

  test('to make the instance, a job can be called off', async () => {
    await callOffWhen(async (names) => {
      await eventually(
        () => Promise.resolve(cluster.controller.log()),
        (log) =>
          names.some((name) => log.some(({ job, verb }) => job === `ci/${name}` && verb === 'resolve')),
        'the first instance is being made',
        30,
      );
    }, 'b-');
  });
});

describe.each(ways)('while a $guest guest on $on runs the command', ({ on: host, guest }) => {
  const start = async (name: string, job: Partial<JobInput> = {}) => {
    const full = `${name}-${guest}-${host}`;
    await cluster.apply(full, on(host, { command: forever, image: `pikaci/${guest}`, ...job }));
    await speaking(full, host);
    return full;
  };

  test.concurrent('cancelling the job ends it, with its log kept and no instance left', async () => {
    const name = await start('cancel-running');
    await cluster.change(name, { cancel: true });
    const { status } = await expectCancelled(name);
    expect(status?.failure?.excerpt).toBe('here\n');
    expect(status?.log).toEqual({ bytes: 5, truncated: false });
    expect(await cluster.instances(hostOf(host))).not.toContain(status?.instance?.name);
  });

  test.concurrent('deleting the job takes the instance away first', async () => {
    const name = await start('delete-running');
    const instance = (await cluster.job(name)).status?.instance?.name;
    await cluster.kubectl('delete', 'cijob', name, '--wait=true', '--timeout=60s');
    expect(await cluster.find(name)).toBeUndefined();
    expect(await cluster.instances(hostOf(host))).not.toContain(instance);
  });

  test.concurrent('suspending the job changes nothing: it was admitted already', async () => {
    const name = await start('suspend-running', { command: 'echo here; sleep 3; exit 4' });
    await cluster.change(name, { suspend: true });
    expect((await cluster.finished(name)).status).toMatchObject({ exitCode: 4, attempt: 1 });
  });
});

describe('after a job has failed', () => {
  test.concurrent('its instance is held as long as asked for, and no longer', async () => {
    await cluster.apply('held', on('by-socket', { command: 'exit 3', holdOnFailureSeconds: 6 }));
    const { status } = await cluster.until('held', 'Failed');
    expect(await cluster.instances(hostOf('by-socket'))).toContain(status?.instance?.name);
    await cluster.cleanedUp('held', 30);
    expect(Date.now() - Date.parse(status?.completionTime ?? '')).toBeGreaterThanOrEqual(6_000);
    expect(await cluster.instances(hostOf('by-socket'))).not.toContain(status?.instance?.name);
  });

  test.concurrent('deleting it ends the hold', async () => {
    await cluster.apply('held-long', on('by-sudo', { command: 'exit 3', holdOnFailureSeconds: 3600 }));
    const { status } = await cluster.until('held-long', 'Failed');
    expect(await cluster.instances(hostOf('by-sudo'))).toContain(status?.instance?.name);
    await cluster.kubectl('delete', 'cijob', 'held-long', '--timeout=30s');
    expect(await cluster.instances(hostOf('by-sudo'))).not.toContain(status?.instance?.name);
  });

  test.concurrent('one that passed is not held', async () => {
    await cluster.apply('not-held', on('by-socket', { command: 'true', holdOnFailureSeconds: 3600 }));
    expect((await cluster.finished('not-held', 30)).status?.phase).toBe('Succeeded');
  });
});

test('a finished job is deleted after its ttl, and not before', async () => {
  await cluster.applyAll({
    'short-lived': on('by-socket', { command: 'true', ttlSecondsAfterFinished: 4 }),
    'shorter-lived': on('by-socket', { command: 'exit 1', ttlSecondsAfterFinished: 0 }),
    'long-lived': on('by-socket', { command: 'true', ttlSecondsAfterFinished: 3600 }),
  });
  const { status } = await cluster.reached(
    'short-lived',
    'ended',
    (job) => job.status?.phase === 'Succeeded',
  );
  await cluster.gone('short-lived', 30);
  expect(Date.now() - Date.parse(status?.completionTime ?? '')).toBeGreaterThanOrEqual(4_000);
  await cluster.gone('shorter-lived', 30);
  expect((await cluster.finished('long-lived')).status?.phase).toBe('Succeeded');
});

test('nothing of any job is left on any host', async () => {
  for (const host of bench.hosts) expect(await cluster.instances(host)).toEqual([]);
});
