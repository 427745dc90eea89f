import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findCondition } from '../../controller/api/conditions.ts';
import { runOk } from '../support/command.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { forged } from './hostile-guests.ts';
import { addSource, startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually, type JobInput } from './support/cluster.ts';

/*
 * Root in a guest mounts a file system of its own on /artifacts (drip/main.go) and kills the runner: the log has a
 * gigabyte, of which 32 KiB come every twenty seconds. All of it would take a week.
 */

describe('a guest whose log drips', () => {
  let dir: string;
  let bench: Bench;
  let cluster: Cluster;
  let job: JobInput;

  beforeAll(async () => {
    dir = await makeTempDir('drip');
    bench = await startBench({ controlPlane: true, ownIncusd: true });
    const { host } = bench;
    // On most machines everybody may open it; here the guest gets one of its own.
    const fuse = { type: 'unix-char', path: '/dev/fuse', mode: '0666' };
    const allowed = { 'restricted.devices.unix-char': 'allow' };
    await host.incus.ask('PATCH', `/1.0/projects/${host.project}`, { config: allowed });
    await host.incus.ask('PATCH', `/1.0/profiles/default?project=${host.project}`, { devices: { fuse } });
    const source = await addSource(host, 'drip', {});
    const program = join(source, 'drip');
    await runOk('go', ['build', '-o', program, '.'], {
      cwd: join(import.meta.dirname, 'drip'),
      env: { ...process.env, CGO_ENABLED: '0' },
    });
    await chmod(program, 0o755);
    cluster = await Cluster.start(bench, {
      flags: ['--log-dir', join(dir, 'logs'), '--log-address', '127.0.0.1:0'],
    });
    const mount =
      '/workspace/snapshot/drip /artifacts >/tmp/drip.out 2>&1 & while ! grep mounted /tmp/drip.out; do sleep 0.1; done';
    job = { ...forged(mount), infraRetryLimit: 0, mounts: [{ name: 'snapshot', source }] };
  });
  afterAll(async () => {
    await cluster.stop();
    await bench.stop();
    await clearAway(dir);
  });

  test('has the outcome of its result within two minutes, which notes that the log is not whole', async () => {
    await cluster.apply('drips', job);
    const { status } = await cluster.finished('drips', 110);
    const seen = JSON.stringify(status);
    expect(status, seen).toMatchObject({ phase: 'Failed', exitCode: 8, failure: { class: 'Test' } });
    const message = expect.stringContaining('the guest answers too slowly') as string;
    expect(findCondition(status?.conditions, 'Collected'), seen).toMatchObject({
      ...{ status: 'False', reason: 'Incomplete', message },
    });
    expect(await cluster.instances()).toEqual([]);
  });

  test('is gone soon after its job is cancelled', async () => {
    await cluster.apply('cancelled', job);
    const { status: running } = await cluster.until('cancelled', 'RunnerStarted');
    const { incus, project } = bench.host;
    const mounted = () =>
      incus.exec(project, running?.instance?.name ?? '', ['grep', 'mounted', '/tmp/drip.out']);
    await eventually(mounted, ({ code }) => code === 0, 'its file system is mounted', 30);
    await cluster.change('cancelled', { cancel: true });
    const { status } = await cluster.finished('cancelled', 60);
    // The result is read, whether or not that had begun: it stands.
    expect(status, JSON.stringify(status)).toMatchObject({ phase: 'Failed', exitCode: 8 });
    expect(await cluster.instances()).toEqual([]);
  });
});
