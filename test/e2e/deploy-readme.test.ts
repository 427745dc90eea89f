import { afterAll, beforeAll, expect, test } from 'vitest';
import { docBlocks } from '../support/doc-blocks.ts';
import { startBench, type Bench } from './support/bench.ts';
import { systemNamespace } from './support/hosts.ts';
import { Reader } from './support/reader.ts';

/* README.md and docs/guest-image.md, followed from an Incus without images and an empty cluster to jobs that have run. */

let bench: Bench;
let reader: Reader;

beforeAll(async () => {
  bench = await startBench({ controlPlane: true, ownIncusd: true });
  reader = await Reader.start(bench);
});
afterAll(async () => {
  await reader.stop();
  await bench.stop();
});

const withoutNix = 'Without Nix: a small Debian, for containers';

test('every block to run is below a heading that is followed here', async () => {
  const titled = async (path: string) =>
    new Set((await docBlocks(path)).filter(({ tested }) => tested).map(({ title }) => title));
  expect(await titled('README.md')).toEqual(new Set(['Run jobs without a cluster', 'Use it on a cluster']));
  expect(await titled('docs/guest-image.md')).toEqual(new Set([withoutNix, 'Check it']));
});

test('docs/guest-image.md leads to an image that keeps the contract', async () => {
  const printed = await reader.follow('docs/guest-image.md', withoutNix, 'Check it');
  expect(printed).toMatch(/^ok 1 /m);
  expect(printed).not.toMatch(/^not ok/m);
});

test('README.md leads to a job that runs without a cluster', async () => {
  const printed = await reader.follow('README.md', 'Run jobs without a cluster');
  expect(printed).toContain('running as pikaci in /workspace/snapshot');
});

test('README.md leads from an empty cluster to a job that has run', async () => {
  const printed = await reader.follow('README.md', 'Use it on a cluster');
  expect(printed).toMatch(/^in-a-container +Succeeded +Succeeded +build-1 +0/m);
});

test('what README.md installed is upgraded as docs/operations.md says, and keeps its image', async () => {
  await reader.follow('docs/operations.md', 'Upgrade');
  const image = 'jsonpath={.spec.template.spec.containers[0].image}';
  const get = ['get', 'deployment', 'cijob-controller', '-n', systemNamespace, '-o', image];
  expect(await bench.controlPlane.kubectlOk(get)).toBe('registry.example.org/ci/cijob-controller:0.1.0');
});
