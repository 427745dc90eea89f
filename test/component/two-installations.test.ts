import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test, vi } from 'vitest';
import { CiJob } from '../../controller/api/cijob.ts';
import { IncusHost } from '../../controller/api/incushost.ts';
import { apiVersion } from '../../controller/api/meta.ts';
import { systemClock } from '../../controller/clock.ts';
import { instanceName } from '../../controller/reconcile/names.ts';
import { OrphanSweep } from '../../controller/reconcile/orphan-sweep.ts';
import { isFinished } from '../../controller/reconcile/step.ts';
import type { GuestScript } from '../support/incus-sim/guest-script.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { ModelApi } from '../support/model/api.ts';
import { ModelController } from '../support/model/controller.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/*
 * Two installations, each with a cluster of its own, on one Incus host and in one project: the real engine, pool and
 * HTTP of both over one simulated Incus.
 */

/** One cluster, and the controller in it. */
class Installation {
  readonly api = new ModelApi();
  readonly controller: ModelController;
  readonly sweep: OrphanSweep;
  readonly swept: string[] = [];

  constructor(controllerId: string, socketPath: string, instances: number) {
    const host = IncusHost.parse({
      apiVersion,
      kind: 'IncusHost',
      metadata: { name: 'host', uid: 'uid-host', creationTimestamp: new Date().toISOString() },
      spec: {
        connection: { local: { socketPath } },
        capacity: { instances },
        allowedNamespaces: { all: true },
      },
    });
    this.controller = new ModelController({
      name: controllerId,
      controllerId,
      api: this.api,
      send: (_words, effect) => Promise.resolve(effect()),
      clock: systemClock,
      hosts: [host],
      patience: { retryBase: 10, retryMax: 20 },
      prompt: true,
    });
    const { pool } = this.controller;
    this.sweep = new OrphanSweep({
      clock: systemClock,
      hosts: pool,
      orphans: () => {
        const jobs = new Set([...this.api.jobs.values()].map(({ metadata }) => metadata.uid));
        return pool.ours().filter(({ instance }) => !jobs.has(instance.labels['uid'] ?? ''));
      },
      grace: 0,
      onRemoved: (_host, instance) => this.swept.push(instance.name),
      onError: (_host, instance, message) => this.swept.push(`${instance.name}: ${message}`),
    });
  }

  /** Creates a job. Returns the name of its first instance. */
  create(name: string, uid: string): string {
    const metadata = { name, namespace: 'ci', uid, creationTimestamp: new Date().toISOString() };
    const spec = { command: 'true', instance: { type: 'Container', image: 'image' } };
    this.api.put(CiJob.parse({ apiVersion, kind: 'CiJob', metadata, spec }));
    return instanceName(uid, 1);
  }

  job(name: string): CiJob | undefined {
    return this.api.jobs.get(`ci/${name}`);
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    await vi.waitFor(() => expect(holds(), what).toBe(true), { timeout: 15_000, interval: 5 });
  }

  running(name: string): Promise<void> {
    return this.until(`${name} runs`, () => this.job(name)?.status?.phase === 'Running');
  }

  /** Waits until a job is over, and let go of. */
  async settled(name: string): Promise<CiJob> {
    const over = (job: CiJob | undefined) => job && isFinished(job) && !job.metadata.finalizers?.length;
    await this.until(`${name} is settled`, () => over(this.job(name)) ?? false);
    return this.job(name)!;
  }

  get used(): number {
    return this.controller.pool.used('host');
  }
}

let directory: string;
let tests = 0;
let sim: IncusSim;
let ours: Installation;
let theirs: Installation;
const endless: GuestScript = { job: { runMs: Infinity } };
let guest: (name: string) => GuestScript;

beforeAll(async () => {
  directory = await makeTempDir('two');
});
afterAll(() => rm(directory, { recursive: true, force: true }));

beforeEach(async () => {
  guest = () => endless;
  sim = new IncusSim({
    guest: (name) => guest(name),
    timings: { create: 1, start: 1, stop: 1, delete: 1 },
  });
  sim.store.addImage('image');
  tests += 1;
  const socketPath = join(directory, `${tests}.sock`);
  await sim.listen(socketPath);
  ours = new Installation('ours', socketPath, 2);
  theirs = new Installation('theirs', socketPath, 2);
});
afterEach(async () => {
  await Promise.all([ours.controller.crash(), theirs.controller.crash()]);
  sim.close();
});

/** Makes sure that both know of everything that is on the host by now. */
async function bothHaveSeen(...instances: string[]): Promise<void> {
  for (const { controller } of [ours, theirs]) {
    const host = controller.pool.get('host')!;
    await expect
      .poll(() => [...host.inventory.all()].map(({ name }) => name).sort())
      .toEqual(instances.sort());
  }
}

describe('of two installations on one host', () => {
  test("neither sweeps up the other's instances, and each does its own", async () => {
    const mine = ours.create('a', 'uid-a');
    const other = theirs.create('b', 'uid-b');
    await Promise.all([ours.running('a'), theirs.running('b')]);
    await bothHaveSeen(mine, other);
    // Neither cluster has the other's job.
    for (const { sweep } of [ours, theirs, ours, theirs]) await sweep.sweep();
    expect([...ours.swept, ...theirs.swept]).toEqual([]);
    expect(sim.names().sort()).toEqual([mine, other].sort());

    ours.api.jobs.clear();
    // The first sweep sees that its job is gone, the next one removes it.
    for (const { sweep } of [ours, theirs, ours, theirs]) await sweep.sweep();
    expect(ours.swept).toEqual([mine]);
    expect(theirs.swept).toEqual([]);
    expect(sim.names()).toEqual([other]);
    expect(theirs.job('b')?.status?.phase).toBe('Running');
  });

  test("each counts its own instances against its capacity, and not the other's", async () => {
    for (const name of ['a', 'b', 'c']) ours.create(name, `uid-${name}`);
    await ours.running('a');
    await ours.running('b');
    expect(ours.used).toBe(2);
    expect(ours.job('c')?.status?.host).toBeUndefined();
    await bothHaveSeen(instanceName('uid-a', 1), instanceName('uid-b', 1));
    expect(theirs.used).toBe(0);
    theirs.create('d', 'uid-d');
    theirs.create('e', 'uid-e');
    await Promise.all([theirs.running('d'), theirs.running('e')]);
    expect([ours.used, theirs.used]).toEqual([2, 2]);
    expect(sim.names()).toHaveLength(4);
  });

  test("neither stops or deletes the other's, however its own jobs end", async () => {
    const mine = ours.create('a', 'uid-a');
    const other = theirs.create('b', 'uid-b');
    await Promise.all([ours.running('a'), theirs.running('b')]);
    await bothHaveSeen(mine, other);
    for (const verb of ['stop', 'delete'] as const) {
      const command = { verb, instance: other, uid: 'uid-b' } as const;
      expect(await ours.controller.pool.perform('host', command)).toMatchObject({
        kind: 'refused',
        reason: 'InstanceNotOurs',
      });
    }
    ours.api.change('ci/a', { cancel: true });
    expect((await ours.settled('a')).status?.phase).toBe('Cancelled');
    expect(sim.names()).toEqual([other]);
    expect(sim.instance(other)?.power).toBe('Running');
    expect(sim.runs(other)).toBe(1);
  });

  test.each([
    ['of another job', 'other-uid'],
    ['of a job with the same uid, as in a cluster restored from a backup', 'uid-a'],
  ])(
    'one that finds an instance of the other under its own name, %s, says so and leaves it alone',
    async (_of, uid) => {
      const name = instanceName('uid-a', 1);
      if (uid === 'uid-a') {
        theirs.create('a', uid);
        await theirs.running('a');
      } else {
        await theirs.until('they see the host', () => theirs.controller.pool.state('host')?.kind === 'up');
        const config = { 'user.cijob.uid': uid, 'user.cijob.controller': 'theirs' };
        await theirs.controller.pool.perform('host', {
          verb: 'create',
          instance: name,
          definition: {
            ...{
              name,
              type: 'container',
              fingerprint: sim.store.images[0]!.fingerprint,
              profiles: ['default'],
            },
            ...{ config, devices: {} },
          },
          wanted: { namespace: 'ci', image: 'image', profiles: ['default'], mounts: [] },
        });
      }
      await bothHaveSeen(name);
      ours.create('a', 'uid-a');
      const { status, metadata } = await ours.settled('a');
      expect(status).toMatchObject({
        phase: 'Failed',
        attempt: 1,
        failure: { class: 'Config', reason: 'InstanceNameTaken' },
      });
      expect(status?.failure?.message).toContain(name);
      expect(metadata.finalizers ?? []).toEqual([]);
      expect(sim.names()).toEqual([name]);
      expect(sim.instance(name)?.power).toBe('Running');
      expect(sim.runs(name)).toBe(uid === 'uid-a' ? 1 : 0);
      expect(ours.used).toBe(0);
    },
  );
});
