import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { happenings } from '../../../controller/kube/job-events.ts';
import type { CommandEnd } from '../../../controller/reconcile/ports.ts';
import { clearAway } from '../../support/left-under.ts';
import { SimBench } from '../../support/sim-bench.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

/*
 * Instances that Incus makes and that do not start: the real engine, pool and HTTP, over the simulated Incus, which does
 * what the real one was seen to do (test/support/incus-scenarios/creation.ts).
 */

let directory: string;
let sources: string;
let bench: SimBench;
let ended: CommandEnd[];
let events: string[];

beforeEach(async () => {
  directory = await makeTempDir('start');
  sources = join(directory, 'sources');
  await mkdir(join(sources, 'outer/sub'), { recursive: true });
  await mkdir(join(sources, 'inner'));
  await symlink(join(sources, 'inner'), join(sources, 'outer/link'));
  ended = [];
  events = [];
  const observe = () => ({
    status: ({ before, after }: { before: CiJobStatus | undefined; after: CiJobStatus }) =>
      void events.push(...happenings(before, after).map(({ reason, note }) => `${reason}: ${note}`)),
    command: (end: CommandEnd) => void ended.push(end),
  });
  const host = { allowedSources: [sources], allowedImages: ['*'] };
  bench = await SimBench.start(join(directory, 'incus.sock'), {}, 4, { observe, host });
  for (const path of ['outer/sub', 'inner']) bench.sim.host.directory(join(sources, path));
  bench.sim.host.symlink(join(sources, 'outer/link'), join(sources, 'inner'));
  bench.sim.store.addImage('linked', 'container', ['/srv/link']);
});
afterEach(async () => {
  await bench.close();
  await clearAway(directory);
});

const statusOf = (name: string) => bench.api.history.get(`uid-${name}`)?.at(-1);
const mount = (name: string, source: string, path: string) => ({ name, source: join(sources, source), path });
const outer = () => mount('outer', 'outer', '/data/outer');
const commandsOf = (name: string, verb: string) =>
  ended.filter(({ job, command }) => job.metadata.name === name && command.verb === verb);

describe('a mount whose path is a link of the image', () => {
  const words =
    'Too many levels of symbolic links - link in /usr/lib/x86_64-linux-gnu/lxc/rootfs/srv/link was a symbolic link!';
  const spec = () => ({
    image: 'linked',
    mounts: [mount('inner', 'inner', '/srv/link')],
    infraRetryLimit: 5,
  });

  test('fails the job after two attempts, with what LXC says in its status, its Events and the log', async () => {
    bench.create('through-link', spec());
    await bench.settled();
    const again = '; the attempt before failed in the same way, so it is not tried again';
    expect(statusOf('through-link')).toMatchObject({
      phase: 'Failed',
      attempt: 2,
      attempts: [{ attempt: 1, reason: 'StartFailed', message: words }],
      failure: { class: 'Infrastructure', reason: 'StartFailed', message: `${words}${again}` },
    });
    expect(events).toEqual(
      expect.arrayContaining([
        `StartFailed: attempt 1 was lost: ${words}`,
        `StartFailed: Infrastructure: ${words}${again}`,
      ]),
    );
    // One line of the log each (cli/observe.ts).
    expect(commandsOf('through-link', 'create').map(({ outcome }) => outcome)).toEqual(
      Array(2).fill({ kind: 'failed', reason: 'StartFailed', message: words }),
    );
    expect(bench.sim.names()).toEqual([]);
  });

  test('says so also when the controller that asked for the instance did not live to hear of it', async () => {
    bench.sim.daemon.hub.faults.lose = () => true;
    bench.create('unheard', spec());
    await expect
      .poll(() => bench.sim.names().map((name) => bench.sim.instance(name)?.lastUsedAt))
      .toEqual([expect.stringMatching(/^2/)]);
    await bench.replaceController();
    bench.sim.daemon.hub.faults.lose = () => false;
    await bench.settled();
    expect(commandsOf('unheard', 'collect')).toHaveLength(1);
    expect(statusOf('unheard')).toMatchObject({
      attempt: 2,
      attempts: [{ reason: 'StartFailed', message: words }],
      failure: { reason: 'StartFailed' },
    });
  });
});

describe('a mount inside another one', () => {
  test('runs where the outer source has a directory for it', async () => {
    bench.create('nested', { mounts: [outer(), mount('inner', 'inner', '/data/outer/sub')] });
    await bench.settled();
    expect(statusOf('nested')).toMatchObject({ phase: 'Succeeded' });
  });

  test.each(['missing', 'link'])(
    'is Config at once where it has none (%s): nothing is made',
    async (below) => {
      bench.create('lacks', { mounts: [outer(), mount('inner', 'inner', `/data/outer/${below}`)] });
      await bench.settled();
      expect(statusOf('lacks')).toMatchObject({
        attempt: 1,
        failure: {
          class: 'Config',
          reason: 'MountPointNotFound',
          message: expect.stringContaining(`has no directory ${below}, or only behind a link`) as string,
        },
      });
      expect(bench.sim.lives).toEqual([]);
    },
  );

  test('whose directory has gone by the time it starts fails as Incus says', async () => {
    bench.sim.host.remove(join(sources, 'outer/sub'));
    bench.create('gone', {
      mounts: [outer(), mount('inner', 'inner', '/data/outer/sub')],
      infraRetryLimit: 0,
    });
    await bench.settled();
    expect(statusOf('gone')?.failure).toMatchObject({
      class: 'Infrastructure',
      reason: 'StartFailed',
      message: expect.stringMatching(
        /^Read-only file system - Failed to create directory ".*outer\/sub"$/,
      ) as string,
    });
  });
});

test('an instance that cannot be made is tried twice, too', async () => {
  await bench.controller.pool.put(bench.host({ storagePool: 'none' }));
  bench.create('poolless', { infraRetryLimit: 5 });
  await bench.settled();
  const words = 'Failed creating instance record: Failed initializing instance: Failed loading storage pool';
  expect(statusOf('poolless')).toMatchObject({
    attempt: 2,
    failure: {
      class: 'Infrastructure',
      reason: 'CreateFailed',
      message: expect.stringContaining(words) as string,
    },
  });
  expect(bench.sim.lives).toEqual([]);
});
