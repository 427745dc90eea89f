import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster } from './support/cluster.ts';

let bench: Bench;
let cluster: Cluster;
beforeAll(async () => {
  bench = await startBench({ controlPlane: true });
  cluster = await Cluster.start(bench);
  await cluster.applyAll({
    passed: { command: 'sleep 1' },
    failed: { command: 'echo some output; exit 3' },
    refused: { command: 'true', image: 'pikaci/no-such-image' },
    queued: { command: 'true', hostSelector: { matchLabels: { no: 'such-host' } } },
    running: { command: 'sleep 600' },
  });
  for (const name of ['passed', 'failed', 'refused']) await cluster.finished(name);
  await cluster.until('running', 'RunnerStarted');
});
afterAll(async () => {
  await cluster.stop();
  await bench.stop();
});

/** Rows of a table that kubectl prints, by name, each a record of its columns. */
async function table(...args: string[]): Promise<Record<string, Record<string, string>>> {
  const [header = '', ...lines] = (await cluster.kubectl('get', ...args)).trimEnd().split('\n');
  const columns = [...header.matchAll(/\S+(\s+|$)/g)].map((match) => ({
    title: match[0].trim(),
    start: match.index,
    end: match.index + match[0].length,
  }));
  return Object.fromEntries(
    lines.map((line) => {
      const row = columns.map(({ title, start, end }, index) => [
        title,
        line.slice(start, index === columns.length - 1 ? undefined : end).trim(),
      ]);
      return [row[0]?.[1] ?? '', Object.fromEntries(row) as Record<string, string>];
    }),
  );
}

const some = expect.stringMatching(/\S/) as string;
const time = expect.stringMatching(/^(\d+h)?(\d+m)?(\d+(\.\d+)?m?s)?$/) as string;
const instance = expect.stringMatching(/^cijob-[0-9a-f]{12}$/) as string;

describe('kubectl get cij', () => {
  test('shows in its columns what there is to know, and leaves empty only what is not known yet', async () => {
    expect(await table('cij')).toEqual({
      passed: {
        ...{ NAME: 'passed', PHASE: 'Succeeded', REASON: 'Succeeded', HOST: 'build-1', EXIT: '0' },
        ...{ RAN: time, AGE: time },
      },
      failed: {
        ...{ NAME: 'failed', PHASE: 'Failed', REASON: 'NonZeroExitCode', HOST: 'build-1', EXIT: '3' },
        ...{ RAN: time, AGE: time },
      },
      refused: {
        ...{ NAME: 'refused', PHASE: 'Failed', REASON: 'ImageNotFound', HOST: 'build-1', EXIT: '' },
        ...{ RAN: '', AGE: time },
      },
      queued: {
        ...{ NAME: 'queued', PHASE: 'Pending', REASON: 'NoMatchingHost', HOST: '', EXIT: '' },
        ...{ RAN: '', AGE: time },
      },
      running: {
        ...{ NAME: 'running', PHASE: 'Running', REASON: 'Running', HOST: 'build-1', EXIT: '' },
        ...{ RAN: '', AGE: time },
      },
    });
  });

  test('-o wide shows where it runs, in which image, and what is the matter', async () => {
    const rows = await table('cij', '-o', 'wide');
    expect(rows['passed']).toMatchObject({
      ...{ INSTANCE: instance, IMAGE: 'pikaci/busybox', ATTEMPT: '1', CLASS: '', MESSAGE: some },
    });
    expect(rows['failed']).toMatchObject({
      ...{ INSTANCE: instance, IMAGE: 'pikaci/busybox', ATTEMPT: '1', CLASS: 'Test', MESSAGE: some },
    });
    expect(rows['refused']).toMatchObject({
      CLASS: 'Config',
      MESSAGE: 'host build-1 has no image pikaci/no-such-image in project ' + bench.host.project,
    });
    expect(rows['queued']).toMatchObject({
      ...{ INSTANCE: '', IMAGE: 'pikaci/busybox', ATTEMPT: '', CLASS: '' },
      MESSAGE: expect.stringContaining('no=such-host') as string,
    });
    expect(rows['running']).toMatchObject({ INSTANCE: instance, ATTEMPT: '1', MESSAGE: some });
  });

  test('finds jobs by phase', async () => {
    const selected = ['--field-selector', 'status.phase=Running'];
    expect(Object.keys(await table('cij', ...selected))).toEqual(['running']);
  });

  test('shows them among everything of the category ci, and the host of theirs', async () => {
    expect(await cluster.kubectl('get', 'ci', '-o', 'name')).toContain('cijob.ci.pikaci.dev/passed');
    const { 'build-1': host } = await table('ih', '-o', 'wide');
    expect(host).toMatchObject({
      ...{ READY: 'True', REASON: 'Connected', USED: some, SLOTS: '4' },
      ...{ INCUS: expect.stringMatching(/^\d+\.\d+/) as string, AGE: time },
      ...{ ADDRESS: '127.0.0.1', PROJECT: bench.host.project },
      ...{ TYPES: expect.stringContaining('Container') as string, MESSAGE: some },
    });
  });
});

describe('kubectl describe', () => {
  test('tells the conditions, the excerpt of the log and what happened', async () => {
    await expect
      .poll(() => cluster.kubectl('describe', 'cij', 'failed'), { timeout: 20_000 })
      .toMatch(/Events:[\s\S]*Admitted[\s\S]*Started[\s\S]*NonZeroExitCode/);
    const described = await cluster.kubectl('describe', 'cij', 'failed');
    for (const words of ['some output', 'Exit Code:', 'NonZeroExitCode', 'Type:', 'Collected']) {
      expect(described).toContain(words);
    }
  });

  test('tells why a job waits', async () => {
    expect(await cluster.kubectl('describe', 'cij', 'queued')).toContain('no IncusHost has the labels');
  });
});

describe('kubectl wait', () => {
  test('returns when the condition is there', async () => {
    await cluster.kubectl('wait', '--for=condition=Complete', 'cij/passed', '--timeout=5s');
    await cluster.kubectl('wait', '--for=condition=Failed', 'cij/failed', 'cij/refused', '--timeout=5s');
    await cluster.apply('awaited', { command: 'sleep 1' });
    await cluster.kubectl('wait', '--for=condition=Complete', 'cij/awaited', '--timeout=60s');
  });

  test('does not take one end for the other, nor a job under way for a finished one', async () => {
    for (const [condition, name] of [
      ['Complete', 'failed'],
      ['Failed', 'passed'],
      ['Complete', 'running'],
      ['Ready', 'running'],
    ]) {
      const waiting = cluster.kubectl('wait', `--for=condition=${condition}`, `cij/${name}`, '--timeout=0');
      await expect(waiting, `${condition} ${name}`).rejects.toThrow('condition not met');
    }
  });
});

test('kubectl explain tells what each field of a job and its status means', async () => {
  for (const [path, words] of [
    ['cij', 'one command, run once'],
    ['cij.spec.mounts', 'always read-only'],
    ['cij.spec.infraRetryLimit', 'infrastructure failures'],
    ['cij.status.failure.class', 'Whose fault it was'],
  ]) {
    const explained = (await cluster.kubectl('explain', path!)).replaceAll(/\s+/g, ' ');
    expect(explained).toMatch(new RegExp(words!, 'i'));
  }
});

test('kubectl delete of a running job returns when it is gone', async () => {
  await cluster.kubectl('delete', 'cij', 'running', '--timeout=60s');
  expect(await cluster.instances()).toEqual([]);
});
