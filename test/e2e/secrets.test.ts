import { readdir, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster } from './support/cluster.ts';
import { guestAliases } from './support/shared-incus.ts';

/* Where the value of a Secret is while a job that got it runs: in the guest's environment, and nowhere else. */

const value = 'correct horse "battery" $staple\nof two lines';
const env = [
  { name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'token', key: 'token' } } },
  { name: 'PLAIN', value: 'plain' },
];
let bench: Bench;
let cluster: Cluster;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true });
  cluster = await Cluster.start(bench);
  await cluster.applyObjects({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'token', namespace: 'ci' },
    stringData: { token: value },
  });
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
});

/** The arguments of every process of this machine, which is the host, and whose users may read them all. */
async function argumentsOnHost(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  return Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
}

/** How many processes of Incus on the host wait for a command in that guest. */
const waiting = (all: readonly string[], instance: string) =>
  all.filter((one) => one.includes('forkexec') && one.includes(instance)).length;
const tellingIt = (all: readonly string[]) => all.filter((one) => one.includes('battery'));

function inGuest(instance: string, ...command: string[]): Promise<string> {
  const { incus, project } = bench.host;
  return incus.execOk(project, instance, command);
}

test.each(Object.entries(guestAliases))(
  'in a %s guest, no process of the host has it in its arguments, and no file in the guest holds it',
  async (kind, image) => {
    await cluster.apply(kind, {
      image,
      env,
      command: 'printf "%s" "$TOKEN$PLAIN" | wc -c; until test -e /tmp/go; do sleep 0.1; done; exit 4',
    });
    const { status } = await cluster.until(kind, 'RunnerStarted');
    const instance = status?.instance?.name ?? '';
    await expect
      .poll(() => inGuest(instance, 'cat', '/artifacts/guest.log'), { timeout: 60_000, interval: 200 })
      .toBe(`${value.length + 'plain'.length}\n`);
    const all = await argumentsOnHost();
    expect(waiting(all, instance)).toBeGreaterThan(0);
    expect(tellingIt(all)).toEqual([]);
    expect(await inGuest(instance, 'find', '/root', '-name', '*environment*')).toBe('');

    // The next controller attaches: it sends the same once more, and nothing is left of that either.
    await cluster.controller.daemon.kill9();
    await cluster.controller.daemon.start();
    await expect
      .poll(async () => waiting(await argumentsOnHost(), instance), { timeout: 60_000 })
      .toBeGreaterThan(0);
    expect(tellingIt(await argumentsOnHost())).toEqual([]);
    await inGuest(instance, 'touch', '/tmp/go');
    expect((await cluster.finished(kind)).status).toMatchObject({ exitCode: 4, attempt: 1 });
  },
);

test('a Secret that no environment can hold is the fault of the job', async () => {
  await cluster.applyObjects({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'binary', namespace: 'ci' },
    data: { token: Buffer.from('a\0b').toString('base64') },
  });
  const valueFrom = { secretKeyRef: { name: 'binary', key: 'token' } };
  await cluster.apply('binary', { env: [{ name: 'TOKEN', valueFrom }], command: 'true' });
  expect((await cluster.finished('binary')).status?.failure).toMatchObject({
    class: 'Config',
    reason: 'SecretInvalid',
    message: expect.stringContaining('binary') as string,
  });
});
