import { join } from 'node:path';
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findCondition } from '../../controller/api/conditions.ts';
import { Artifacts } from '../../controller/hosts/artifacts.ts';
import { isFinished } from '../../controller/reconcile/step.ts';
import { partingTime } from '../../controller/reconcile/attempt.ts';
import { LogStore } from '../../controller/logs/log-store.ts';
import { namesIn } from '../support/archives.ts';
import { FarHost } from '../support/far-host.ts';
import type { GuestEntry } from '../support/incus-sim/guest-files.ts';
import type { GuestScript, JobScript } from '../support/incus-sim/guest-script.ts';
import { clearAway } from '../support/left-under.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { SimBench, type BenchSpec } from '../support/sim-bench.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/*
 * Guests that serve their files as slowly as they like: root in a guest may mount a file system of its own on
 * /artifacts, and send 32 KiB every twenty seconds, or nothing at all.
 */

const drip: GuestEntry = { kind: 'drip', size: 2 ** 30 };
const minute = 60_000;

describe('a guest that drips', () => {
  let directory: string;
  let clock: ManualClock;
  let began: number;
  let store: LogStore;
  let bench: SimBench;

  beforeEach(async () => {
    directory = await makeTempDir('drip');
    clock = new ManualClock(Date.now());
    store = await LogStore.open({
      directory: join(directory, 'kept'),
      maxBytes: 0,
      maxArchiveBytes: 2 ** 20,
      totalBytes: 2 ** 30,
      clock,
      isLive: () => true,
      onError: () => undefined,
    });
  });
  afterEach(async () => {
    await bench.close();
    await clearAway(directory);
  });

  async function start(job: JobScript, spec: BenchSpec = {}, files: GuestScript['files'] = {}) {
    const artifacts = () => new Artifacts({ begin: (log, end) => store.beginArchive(log, end) }, clock);
    const guest = { job: { runMs: 3, ...job }, files };
    bench = await SimBench.start(join(directory, 'incus.sock'), guest, 4, { artifacts, clock });
    began = clock.now();
    return bench.create('job', { infraRetryLimit: 0, ...spec });
  }

  const job = () => bench.api.history.get('uid-job')?.at(-1);
  const drips = () => bench.sim.names().map((name) => bench.sim.instance(name)?.guest.files.dripping);
  const isOver = () => isFinished({ status: job() }) && bench.sim.names().length === 0;

  async function untilItDrips(): Promise<void> {
    await expect.poll(drips, { timeout: 10_000, interval: 2 }).toEqual([1]);
  }

  /**
   * Whatever follows from what was done last happens before the clock moves on: the steps of the simulated Incus, which
   * take a few milliseconds, requests, and files that are written, however slow the disk is. After a pause of the machine
   * itself, what has come meanwhile is seen in the next turns of the event loop.
   */
  async function quiet(): Promise<void> {
    for (let turns = 0; turns < 20; turns += 1) {
      const before = bench.requests;
      await (turns === 0 ? pause(5) : turn());
      if (bench.requests !== before || usesFiles()) turns = -1;
    }
  }
  const usesFiles = () => process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq'));

  /** Lets time go by, so many bytes every twenty seconds, until the job is over. Returns how long that was. */
  async function over(bytes = 32 * 1024): Promise<number> {
    for (let second = 0; !isOver() && second < 20 * 60; second += 1) {
      if (second % 20 === 0)
        for (const name of bench.sim.names()) bench.sim.instance(name)?.guest.files.drip(bytes);
      clock.advance(1_000);
      await quiet();
    }
    return clock.now() - began;
  }

  it('its log has the outcome that its result says, which notes what is missing', async () => {
    await start({ exitCode: 3, logEntry: drip });
    await untilItDrips();
    expect(await over(100)).toBeLessThan(2 * minute);
    expect(job()).toMatchObject({ phase: 'Failed', exitCode: 3, failure: { class: 'Test' }, attempt: 1 });
    expect(findCondition(job()?.conditions, 'Collected')).toMatchObject({
      status: 'False',
      reason: 'Incomplete',
      message: expect.stringContaining('the end of the log: the guest answers too slowly') as string,
    });
  });

  it('an artifact leaves that one out, and keeps the others', async () => {
    const files = { '/artifacts/a': { kind: 'file', content: 'a' }, '/artifacts/b': drip } as const;
    await start({}, { artifacts: ['*'] }, { ...files, '/artifacts/c': { kind: 'file', content: 'c' } });
    await untilItDrips();
    expect(await over()).toBeLessThan(2 * minute);
    expect(job()).toMatchObject({ phase: 'Succeeded', artifacts: { files: 2, skipped: 1 } });
    const message = 'left out 1: files that the guest sent too slowly: b';
    expect(job()?.artifacts?.notes).toEqual([{ reason: 'SlowFile', message }]);
    const archive = { namespace: 'default', name: 'job', uid: 'uid-job', attempt: 1 };
    expect(await namesIn(await store.readArchive(archive, 0, 2 ** 20))).toEqual(['a', 'c']);
  });

  it('its result is given up within minutes', async () => {
    await start({ resultEntry: { kind: 'drip', size: 60_000 } });
    await untilItDrips();
    expect(await over(100)).toBeLessThan(4 * minute);
    expect(job()).toMatchObject({ phase: 'Failed', failure: { reason: 'ResultUnreadable' } });
  });

  it.each(['cancelled', 'deleted'])('is gone seconds after its job is %s', async (how) => {
    const key = await start({ logEntry: drip });
    await untilItDrips();
    if (how === 'deleted') bench.api.delete(key, clock.now());
    else bench.api.change(key, { cancel: true });
    expect(await over(100)).toBeLessThan(partingTime + 15_000);
    // The result was read before: it stands.
    expect(job()).toMatchObject({ phase: 'Succeeded', exitCode: 0 });
  });

  it.each(['cancelled', 'deleted'])('is gone at once when its job is %s before it began', async (how) => {
    const variables = [{ name: 'GREETING', value: 'hello' }];
    const key = await start({}, { env: variables }, { '/etc/pikaci/guest-contract': drip });
    await untilItDrips();
    if (how === 'deleted') bench.api.delete(key, clock.now());
    else bench.api.change(key, { cancel: true });
    expect(await over(0)).toBeLessThan(5_000);
    expect(job()).toMatchObject({ phase: 'Cancelled', failure: { class: 'Cancelled' } });
  });

  it.each(['cancelled', 'deleted'])('is gone seconds after its job is %s while it runs', async (how) => {
    const key = await start({ runMs: Infinity }, {}, { '/artifacts/guest.log': drip });
    await expect
      .poll(() => bench.sim.names().map((name) => bench.sim.runs(name)), { timeout: 10_000 })
      .toEqual([1]);
    const [name = ''] = bench.sim.names();
    bench.sim.instance(name)?.guest.files.set('/artifacts/guest.log', drip);
    if (how === 'deleted') bench.api.delete(key, clock.now());
    else bench.api.change(key, { cancel: true });
    await untilItDrips();
    expect(await over(100)).toBeLessThan(partingTime + 15_000);
    expect(job()).toMatchObject({ phase: 'Cancelled', failure: { class: 'Cancelled' } });
  });
});

describe('guests that send nothing, on a host that is reached through sudo', () => {
  it('hold up no request, and no job of another namespace', { timeout: 30_000 }, async () => {
    const silent: GuestScript = { job: { runMs: 3, logEntry: drip } };
    const quick: GuestScript = { job: { runMs: 3, log: 'text\n' } };
    let made = 0;
    await using far = await FarHost.start(() => ((made += 1) <= 4 ? silent : quick), { via: 'Sudo' });
    await using jobs = await far.reconciler();
    for (const name of ['a', 'b', 'c', 'd']) jobs.create(name, 'hostile');
    const dripping = () =>
      far.incus.names().filter((name) => (far.incus.instance(name)?.guest.files.dripping ?? 0) > 0).length;
    await expect.poll(dripping, { timeout: 10_000 }).toBeGreaterThan(0);
    await expect.poll(() => far.incus.names().length, { timeout: 10_000 }).toBe(4);
    jobs.create('good', 'other');
    await expect.poll(() => jobs.over('good', 'other'), { timeout: 10_000 }).toBe(true);
    expect(jobs.job('good', 'other')?.status).toMatchObject({ phase: 'Succeeded', attempt: 1 });
    expect(dripping()).toBeGreaterThan(0);
    expect(far.machine.refusedSessions).toBe(0);
  });
});
