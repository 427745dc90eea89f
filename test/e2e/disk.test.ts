import { afterAll, beforeAll, expect, test } from 'vitest';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster } from './support/cluster.ts';

/* A storage pool that holds guests to the size of their root disks. The other tests' pools of directories do not. */

const pool = 'quota';
let bench: Bench;
let cluster: Cluster;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true, ownIncusd: true });
  await bench.host.incus.incusOk(['storage', 'create', pool, 'btrfs', 'size=6GiB']);
  cluster = await Cluster.start(bench, { host: { storagePool: pool } });
});
afterAll(async () => {
  await cluster.stop();
  const { incus, project } = bench.host;
  await incus.deleteProject(project);
  const volumes = JSON.parse(await incus.incusOk(['storage', 'volume', 'list', pool, '-f', 'json'])) as {
    type: string;
    name: string;
  }[];
  for (const { type, name } of volumes) {
    await incus.incusOk(['storage', 'volume', 'delete', pool, `${type}/${name}`]);
  }
  await incus.incusOk(['storage', 'delete', pool]);
  await bench.stop();
});

test.each([
  { image: 'pikaci/busybox', runAsRoot: true },
  { image: 'pikaci/systemd', runAsRoot: false },
])(
  'a guest of $image that fills its disk has its own outcome, and leaves room to others',
  async ({ image, runAsRoot }) => {
    const guest = { image, instance: { rootDisk: '512MiB' } };
    const kind = image.split('/')[1] ?? '';
    await cluster.applyAll({
      [`greedy-${kind}`]: {
        ...guest,
        command: 'head -c 3000000000 /dev/zero >/artifacts/fill; exit 9',
        runAsRoot,
      },
      [`modest-${kind}`]: {
        ...guest,
        command: 'for i in 1 2 3 4; do head -c 10000000 /dev/zero >/artifacts/$i || exit 1; sleep 1; done',
      },
    });
    const { status } = await cluster.finished(`greedy-${kind}`, 100);
    const failure = {
      class: 'Test',
      message: expect.stringContaining('guest.log could not be written') as string,
    };
    expect(status).toMatchObject({ phase: 'Failed', exitCode: 9, attempt: 1, failure });
    // The log's end is kept in memory, where the guest has a /run of its own.
    if (kind === 'systemd') expect(status?.failure?.excerpt).toMatch(/its end follows\n.*(No space|quota)/s);
    const other = await cluster.finished(`modest-${kind}`, 100);
    expect(other.status).toMatchObject({ phase: 'Succeeded', attempt: 1 });
    expect(await cluster.instances()).toEqual([]);
  },
  240_000,
);
