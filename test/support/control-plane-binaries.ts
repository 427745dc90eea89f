import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CommandError, run } from './command.ts';

/** Paths of the programs of one Kubernetes version. */
export interface ControlPlaneBinaries {
  etcd: string;
  kubeApiserver: string;
  kubectl: string;
}

const moduleDir = join(import.meta.dirname, 'controlplane');

/** Where things that took long to make are kept between runs. */
export function cacheDir(): string {
  return join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'cijob-controller');
}

/**
 * The control plane's programs: those of KUBEBUILDER_ASSETS where it is set (the convention of envtest), else built once
 * from their Go modules, at the versions of controlplane/go.mod, and kept. The first build takes minutes.
 *
 * Throws an Error that says what to install when neither is possible.
 */
export async function controlPlaneBinaries({
  onProgress = () => undefined,
}: { onProgress?: (line: string) => void } = {}): Promise<ControlPlaneBinaries> {
  const assets = process.env['KUBEBUILDER_ASSETS'];
  if (assets) {
    const binaries = binariesIn(assets);
    const absent = [binaries.etcd, binaries.kubeApiserver, binaries.kubectl].filter(
      (path) => !existsSync(path),
    );
    if (absent.length > 0)
      throw new Error(`KUBEBUILDER_ASSETS is set, but there is no ${absent.join(', no ')}`);
    return binaries;
  }
  const goMod = await readFile(join(moduleDir, 'go.mod'), 'utf8');
  const version = /k8s\.io\/kubernetes (v[0-9.]+)/.exec(goMod)?.[1];
  if (version === undefined) throw new Error(`${moduleDir}/go.mod names no version of k8s.io/kubernetes`);
  const digest = createHash('sha256')
    .update(goMod)
    .update(await readFile(join(moduleDir, 'go.sum')))
    .digest('hex');
  const kept = join(cacheDir(), `control-plane-${version}-${digest.slice(0, 12)}`);
  if (!existsSync(kept)) await build(kept, version, onProgress);
  return binariesIn(kept);
}

function binariesIn(dir: string): ControlPlaneBinaries {
  return {
    etcd: join(dir, 'etcd'),
    kubeApiserver: join(dir, 'kube-apiserver'),
    kubectl: join(dir, 'kubectl'),
  };
}

/** Builds into a directory beside the final one and renames it, so that what is there is always whole. */
async function build(kept: string, version: string, onProgress: (line: string) => void): Promise<void> {
  const go = await run('go', ['version']).catch(() => undefined);
  if (go?.code !== 0) {
    throw new Error(
      `kube-apiserver ${version}, kubectl and etcd are built with Go, and there is no \`go\` here. ` +
        'Install Go 1.21 or newer (it fetches the exact version it needs), or set KUBEBUILDER_ASSETS to a directory ' +
        'that holds kube-apiserver, kubectl and etcd.',
    );
  }
  onProgress(`building kube-apiserver ${version}, kubectl and etcd (the first time takes some minutes) …`);
  await mkdir(cacheDir(), { recursive: true });
  const dir = await mkdtemp(`${kept}-building-`);
  try {
    // kubectl and clients parse the version a server reports; without these it reports none.
    const [, major, minor] = /^v(\d+)\.(\d+)/.exec(version) ?? [];
    const settings = { gitVersion: version, gitMajor: major, gitMinor: minor, gitTreeState: 'clean' };
    const stamps = Object.entries(settings).map(
      ([name, value]) => `-X k8s.io/component-base/version.${name}=${value ?? ''}`,
    );
    const steps: [string, string, string][] = [
      ['kube-apiserver', 'k8s.io/kubernetes/cmd/kube-apiserver', stamps.join(' ')],
      ['kubectl', 'k8s.io/kubernetes/cmd/kubectl', stamps.join(' ')],
      ['etcd', 'go.etcd.io/etcd/server/v3', ''],
    ];
    for (const [name, path, ldflags] of steps) {
      const started = performance.now();
      const args = ['build', '-trimpath', '-ldflags', `-s -w ${ldflags}`, '-o', join(dir, name), path];
      const result = await run('go', args, {
        cwd: moduleDir,
        // cgo would tie the kept programs to this machine's C library.
        env: { CGO_ENABLED: '0', GOFLAGS: '-mod=readonly', GOWORK: 'off' },
        timeoutMs: 30 * 60_000,
        onLine: (line) => {
          if (line.startsWith('go: downloading')) onProgress(`  ${line}`);
        },
      });
      if (result.code !== 0) throw new CommandError('go', args, result);
      onProgress(`  built ${name} in ${((performance.now() - started) / 1000).toFixed(0)} s`);
    }
    await rename(dir, kept).catch((error: unknown) => {
      // Another run has just built the same.
      if (!existsSync(kept)) throw error;
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
