import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadKubeConfig, ownNamespace } from '../../../controller/kube/kube-config.ts';

describe('the kubeconfig', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'kubeconfig-'));
    vi.stubEnv('KUBECONFIG', '');
    vi.stubEnv('HOME', dir);
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '');
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(dir, { recursive: true });
  });

  function write(name: string, server: string, extra: object = {}): string {
    const file = join(dir, name);
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'main',
      clusters: [
        { name: 'c', cluster: { server, ...extra } },
        { name: 'd', cluster: { server: 'https://other.example.org' } },
      ],
      users: [{ name: 'u', user: { token: 't' } }],
      contexts: [
        { name: 'main', context: { cluster: 'c', user: 'u', namespace: 'ci' } },
        { name: 'other', context: { cluster: 'd', user: 'u' } },
      ],
    };
    writeFileSync(file, JSON.stringify(config));
    return file;
  }

  it('is the file that was given, before that of the environment', () => {
    vi.stubEnv('KUBECONFIG', write('env', 'https://env.example.org'));
    expect(loadKubeConfig().getCurrentCluster()?.server).toBe('https://env.example.org');
    const file = write('flag', 'https://flag.example.org');
    expect(loadKubeConfig({ file }).getCurrentCluster()?.server).toBe('https://flag.example.org');
  });

  it('follows the context, also for the namespace', () => {
    const file = write('flag', 'https://flag.example.org');
    expect(ownNamespace(loadKubeConfig({ file }))).toBe('ci');
    const other = loadKubeConfig({ file, context: 'other' });
    expect([other.getCurrentCluster()?.server, ownNamespace(other)]).toEqual([
      'https://other.example.org',
      'default',
    ]);
  });

  it('is refused when its context names no cluster', () => {
    const file = write('flag', 'https://flag.example.org');
    expect(() => loadKubeConfig({ file, context: 'nowhere' })).toThrow('"nowhere"');
  });

  it('is refused when it would send the token in the clear, unless it says so', () => {
    const server = 'http://flag.example.org';
    expect(() => loadKubeConfig({ file: write('clear', server) })).toThrow('plain http');
    const file = write('meant', server, { 'insecure-skip-tls-verify': true });
    expect(loadKubeConfig({ file }).getCurrentCluster()?.server).toBe(server);
  });

  it('is refused when there is none at all', () => {
    expect(() => loadKubeConfig()).toThrow();
    expect(() => loadKubeConfig({ file: join(dir, 'missing') })).toThrow('missing');
  });
});
