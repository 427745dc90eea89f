import { mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../support/command.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { manifest } from './support/cluster.ts';
import { Installed } from './support/installed.ts';
import { running } from './support/outcomes.ts';

/* docs/operations.md: every block marked `sh tested` is run as it stands there, one after the other. */

const repository = join(import.meta.dirname, '../..');
let dir: string;
let bench: Bench;
let installed: Installed;

beforeAll(async () => {
  dir = await makeTempDir('docs');
  bench = await startBench({ controlPlane: true });
  installed = await Installed.start(bench);
  await mkdir(join(dir, 'bin'));
  await symlink(bench.controlPlane.binaries.kubectl, join(dir, 'bin/kubectl'));
  await symlink(join(repository, 'deploy'), join(dir, 'deploy'));
});
afterAll(async () => {
  await installed.stop();
  await bench.stop();
  await clearAway(dir);
});

async function sh(block: string): Promise<string> {
  const { code, stdout, stderr } = await run('bash', ['-euo', 'pipefail', '-c', block], {
    cwd: dir,
    env: {
      PATH: `${join(dir, 'bin')}:${process.env['PATH'] ?? ''}`,
      KUBECONFIG: bench.controlPlane.adminKubeconfig,
    },
  });
  expect(code, `${block}\n${stderr}`).toBe(0);
  return stdout;
}

describe('docs/operations.md', () => {
  test('its commands do what it says, from installing to uninstalling without a trace', async () => {
    const text = await readFile(join(repository, 'docs/operations.md'), 'utf8');
    const sections = text.split(/^## /m).slice(1);
    const blocks = sections.flatMap((section) =>
      [...section.matchAll(/^```sh tested\n([\s\S]*?)^```$/gm)].map(([, block]) => ({
        title: section.split('\n', 1)[0] ?? '',
        block: block ?? '',
      })),
    );
    expect(new Set(blocks.map(({ title }) => title))).toEqual(
      new Set(['Install', 'Add a host', 'Drain a host', 'Upgrade', 'Back up', 'Uninstall']),
    );
    for (const { title, block } of blocks) {
      if (title === 'Uninstall') {
        await installed.apply(manifest('left', { command: 'sleep 600' }));
        await running(installed, 'left');
      }
      await sh(block);
    }
    expect(await bench.host.incus.instances(bench.host.project)).toEqual([]);
    const left = await bench.controlPlane.kubectlOk(['get', 'crd,clusterrole', '-o', 'name']);
    expect(left).not.toMatch(/cijob|incushost|pikaci/);
  });
});

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

  test.each(['controller', 'hosts', 'jobs', 'policies'])('docs/gitops/%s builds', async (part) => {
    const built = await bench.controlPlane.kubectlOk(['kustomize', join(repository, 'docs/gitops', part)]);
    expect(built).toContain('apiVersion:');
  });

  test('the component for Argo CD adds to what argocd-cm holds', async () => {
    const argo = join(dir, 'argo');
    await mkdir(argo);
    const component = relative(argo, join(repository, 'deploy/gitops/argocd'));
    const kustomization = [
      'configMapGenerator: [{name: argocd-cm, namespace: argocd, literals: [url=https://argo.example.org]}]',
      `components: [${component}]`,
    ];
    await sh(`printf '%s\\n' "${kustomization.join('" "')}" >argo/kustomization.yaml`);
    const built = await bench.controlPlane.kubectlOk(['kustomize', argo]);
    expect(built).toContain('resource.customizations.health.ci.pikaci.dev_CiJob: |');
    expect(built).toContain('url: https://argo.example.org');
  });
});
