import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { addSource, startBench, type Bench } from './support/bench.ts';
import { Cluster } from './support/cluster.ts';

/* A guest that Incus makes and cannot start, for a reason that nobody can know beforehand. */

let bench: Bench;
let cluster: Cluster;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true });
  await addSource(bench.host, 'snapshot', { file: 'a snapshot\n' });
  cluster = await Cluster.start(bench);
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
});

test.each(['busybox', 'systemd'])(
  'a mount on a link of the image (%s) fails after two attempts, as LXC says, where everybody can read it',
  async (kind) => {
    const name = `on-a-link-${kind}`;
    const source = join(bench.host.sources, 'snapshot');
    await cluster.applyAll({
      [name]: {
        command: 'true',
        image: `pikaci/${kind}`,
        infraRetryLimit: 5,
        mounts: [{ name: 'snapshot', source, path: '/srv/link' }],
      },
    });
    // The third failed creation of a namespace keeps its jobs from the host for up to 15 s.
    const { status } = await cluster.finished(name, 100);
    const words = /^Too many levels of symbolic links - link in \S+\/srv\/link was a symbolic link!/;
    expect(status).toMatchObject({
      phase: 'Failed',
      attempt: 2,
      attempts: [{ reason: 'StartFailed', message: expect.stringMatching(words) as string }],
      failure: {
        class: 'Infrastructure',
        reason: 'StartFailed',
        message: expect.stringMatching(words) as string,
      },
    });
    expect(status?.failure?.message).toContain('so it is not tried again');
    const logged = cluster.controller
      .log()
      .filter(({ verb, outcome, job }) => verb === 'create' && outcome === 'failed' && job === `ci/${name}`);
    expect(logged).toHaveLength(2);
    for (const { reason } of logged) expect(reason).toMatch(words);
    await expect
      .poll(() => cluster.kubectl('get', 'events', '-o', 'json'), { timeout: 20_000 })
      .toMatch(
        /"note": "attempt 1 was lost: Too many levels|"message": "attempt 1 was lost: Too many levels/,
      );
    await expect.poll(() => cluster.instances(), { timeout: 20_000 }).toEqual([]);
  },
  160_000,
);
