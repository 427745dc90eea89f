import { readdir, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster } from './support/cluster.ts';
import { guestAliases } from './support/shared-incus.ts';

/* Where the variables of a job are while it runs: in the command's environment, and nowhere else. */

const value = 'correct horse "battery" $staple\nof two lines';
const plain = 'plain battery';
const env = [
  { name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'token', key: 'token' } } },
  { name: 'PLAIN', value: plain },
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
      .toBe(`${value.length + plain.length}\n`);
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

test('a job whose variables are no secrets keeps them to itself as well', async () => {
  const command = 'until test -e /tmp/go; do sleep 0.1; done; test "$PLAIN" = "plain battery"';
  await cluster.apply('plain', { env: [{ name: 'PLAIN', value: plain }], command });
  const { status } = await cluster.until('plain', 'RunnerStarted');
  const instance = status?.instance?.name ?? '';
  await expect
    .poll(async () => waiting(await argumentsOnHost(), instance), { timeout: 60_000 })
    .toBeGreaterThan(0);
  const others = (await argumentsOnHost()).filter((one) => !one.includes('until test -e /tmp/go'));
  expect(tellingIt(others)).toEqual([]);
  await inGuest(instance, 'touch', '/tmp/go');
  expect((await cluster.finished('plain')).status?.phase).toBe('Succeeded');
});

/** Makes a Secret of these keys, and a job that gets each of them by a variable `V_` and the key. */
async function jobWith(name: string, keys: Record<string, Buffer>, command: string, image: string) {
  const data = Object.entries(keys).map(([key, bytes]) => [key, bytes.toString('base64')]);
  const metadata = { name, namespace: 'ci' };
  await cluster.applyObjects({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata,
    data: Object.fromEntries(data) as object,
  });
  const variables = Object.keys(keys).map((key) => ({
    name: `V_${key}`,
    valueFrom: { secretKeyRef: { name, key } },
  }));
  await cluster.apply(name, { image, env: variables, command });
  return (await cluster.finished(name)).status;
}

describe.each(Object.entries(guestAliases))('in a %s guest', (kind, image) => {
  test('bytes that are no text arrive as they are, and show as stars', async () => {
    const bytes = Buffer.from([0xff, 0xfe, 0x80, 0xc3, 0x28, 0x0a, 0x20, 0x09, 0x41, 0x01]);
    const command =
      'printf "<%s>" "$V_raw" >/artifacts/got; od -An -v -tx1 </artifacts/got; cat /artifacts/got; exit 9';
    const status = await jobWith(`raw-${kind}`, { raw: bytes }, command, image);
    const hex = Buffer.concat([Buffer.from('<'), bytes, Buffer.from('>')]).toString('hex');
    const [shown, ...rest] = (status?.failure?.excerpt ?? '').split('\n');
    expect(shown?.replaceAll(' ', '')).toBe(hex);
    expect(rest.join('\n')).toBe('<***>');
  });

  test('as much as a job may have is taken: the longest single value, and the sum', async () => {
    const longest = 131_072 - 'V_k00='.length - 1;
    const keys = Array.from({ length: 7 }, (_, index): [string, Buffer] => [
      `k0${index}`,
      Buffer.alloc(longest, 'x'),
    ]);
    const data = Object.fromEntries(keys.map(([key, bytes]) => [key, bytes.toString('base64')]));
    const metadata = { name: `more-${kind}`, namespace: 'ci' };
    // `kubectl apply` would keep a copy of it in an annotation, which takes no more than 256 KiB.
    await bench.controlPlane.kubectlOk(['create', '-f', '-'], {
      input: JSON.stringify({ apiVersion: 'v1', kind: 'Secret', metadata, data }),
    });
    const more = keys.slice(0, 6).map(([key]) => ({
      name: `W_${key}`,
      valueFrom: { secretKeyRef: { name: `more-${kind}`, key } },
    }));
    const all = [
      ...keys.map(([key]) => ({
        name: `V_${key}`,
        valueFrom: { secretKeyRef: { name: `more-${kind}`, key } },
      })),
      ...more,
    ];
    // 64 KiB of command, the longest there may be, beside them; and a program is started with all of it.
    const command = `/bin/bash -c 'echo \${#V_k00} \${#W_k05}; exit 7' # ${'😀'.repeat(16_300)}`;
    await cluster.apply(`much-${kind}`, { image, env: all, command });
    const { status } = await cluster.finished(`much-${kind}`);
    expect(status?.failure?.excerpt).toBe(`${longest} ${longest}\n`);
    expect(status?.exitCode).toBe(7);
  });
});

test.each([
  ['a NUL byte', Buffer.from('a\0b')],
  ['more than a variable can', Buffer.alloc(131_072, 'x')],
])('a Secret that holds %s is the fault of the job, by the names of Secret and key', async (what, bytes) => {
  const name = what.replaceAll(' ', '-').toLowerCase();
  const status = await jobWith(name, { token: bytes }, 'true', guestAliases.busybox);
  expect(status?.failure).toMatchObject({ class: 'Config', reason: 'SecretInvalid' });
  expect(status?.failure?.message).toContain(`key token of Secret ${name} holds`);
  expect(status?.conditions?.find(({ type }) => type === 'RunnerStarted')?.status).not.toBe('True');
});
