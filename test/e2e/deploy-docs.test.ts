import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../support/command.ts';
import { docBlocks } from '../support/doc-blocks.ts';
import { startBench, type Bench } from './support/bench.ts';
import { manifest } from './support/cluster.ts';
import { Reader } from './support/reader.ts';

/* docs/operations.md, followed from its first block to its last, and what docs/ say of GitOps. */

const repository = join(import.meta.dirname, '../..');
let bench: Bench;
let reader: Reader;

beforeAll(async () => {
  bench = await startBench({ controlPlane: true });
  reader = await Reader.start(bench);
});
afterAll(async () => {
  await reader.stop();
  await bench.stop();
});

const operations = 'docs/operations.md';

test('docs/operations.md installs what docs/gitops holds parts of', async () => {
  await reader.follow(operations, 'Install');
  await bench.controlPlane.kubectlOk(['create', 'namespace', 'ci']);
});

test.each(['controller', 'hosts', 'policies', 'jobs'])(
  'docs/gitops/%s is accepted by the API server',
  async (part) => {
    const kustomization = join(repository, 'docs/gitops', part);
    const dryRun = ['apply', '--server-side', '--dry-run=server', '--validate=strict', '-k', kustomization];
    expect(await bench.controlPlane.kubectlOk(dryRun)).toContain('serverside-applied (server dry run)');
  },
);

test('docs/operations.md leads on to uninstalling without a trace, with a job that runs', async () => {
  const blocks = (await docBlocks(operations)).filter(({ tested }) => tested);
  const [first, ...titles] = [...new Set(blocks.map(({ title }) => title))];
  expect([first, titles.at(-1)]).toEqual(['Install', 'Uninstall']);
  for (const title of titles) {
    if (title === 'Uninstall') await leaveAJob();
    await reader.follow(operations, title);
  }
  expect(await bench.host.incus.instances(bench.host.project)).toEqual([]);
  const left = await bench.controlPlane.kubectlOk(['get', 'crd,clusterrole', '-o', 'name']);
  expect(left).not.toMatch(/cijob|incushost|pikaci/);
});

test('docs/operations.md sets where every alert leads to its runbook', async () => {
  const built = await reader.sh('kubectl kustomize my-monitoring');
  const urls = [...built.matchAll(/runbook_url: (.*)$/gm)].map(([, url]) => url ?? '');
  expect(urls.length).toBeGreaterThan(5);
  expect(urls.filter((url) => !url.startsWith('https://wiki.example.org/cijob/runbooks#cijob'))).toEqual([]);
  expect(built).not.toContain('cijob-runbooks');
});

async function leaveAJob(): Promise<void> {
  const inCi = (...args: string[]) => ['--namespace', 'ci', ...args];
  await bench.controlPlane.kubectlOk(['label', 'namespace', 'ci', 'ci.pikaci.dev/allowed=true']);
  const job = JSON.stringify(manifest('left', { command: 'sleep 600' }));
  await bench.controlPlane.kubectlOk(inCi('apply', '-f', '-'), { input: job });
  const runs = '--for=jsonpath={.status.phase}=Running';
  await bench.controlPlane.kubectlOk(inCi('wait', runs, 'cijob/left', '--timeout=60s'));
}

describe('the commands of docs/', () => {
  test('are of files that there are', async () => {
    const files = (await readdir(join(repository, 'docs'))).filter((file) => file.endsWith('.md'));
    const missing: string[] = [];
    for (const file of files) {
      const text = await readFile(join(repository, 'docs', file), 'utf8');
      for (const [path] of text.matchAll(/\bdeploy\/[A-Za-z0-9_./-]*[A-Za-z0-9_-]/g)) {
        const { code } = await run('test', ['-e', join(repository, path)]);
        if (code !== 0) missing.push(`${file}: ${path}`);
      }
    }
    expect(missing).toEqual([]);
  });

  test('the component for Argo CD adds to what argocd-cm holds', async () => {
    const argo = join(reader.dir, 'argo');
    await mkdir(argo);
    const component = relative(argo, join(repository, 'deploy/gitops/argocd'));
    const kustomization = [
      'configMapGenerator: [{name: argocd-cm, namespace: argocd, literals: [url=https://argo.example.org]}]',
      `components: [${component}]`,
    ];
    await reader.sh(`printf '%s\\n' "${kustomization.join('" "')}" >argo/kustomization.yaml`);
    const built = await bench.controlPlane.kubectlOk(['kustomize', argo]);
    expect(built).toContain('resource.customizations.health.ci.pikaci.dev_CiJob: |');
    expect(built).toContain('url: https://argo.example.org');
  });
});
