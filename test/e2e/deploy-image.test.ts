import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { run, runOk } from '../support/command.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { ensurePackages } from '../support/debian-packages.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { BuiltImage } from './support/built-image.ts';
import { ControllerProcess } from './support/controller.ts';
import { systemNamespace } from './support/hosts.ts';
import { installFile } from './support/installed.ts';

/* The image of deploy/image, built from packages and run: as the user it names, and without a way to write to it. */

const repository = join(import.meta.dirname, '../..');
const script = join(repository, 'deploy/image/build');
const readJson = async (path: string) =>
  JSON.parse(await readFile(join(repository, path), 'utf8')) as unknown;
let image: BuiltImage;

beforeAll(async () => {
  image = await BuiltImage.build('cijob-controller:built');
}, 300_000);
afterAll(() => image[Symbol.asyncDispose]());

/** The paths in the image that find(1) finds. */
async function found(...expression: string[]): Promise<string[]> {
  const paths = await runOk('find', [image.root, ...expression, '-printf', '/%P\n']);
  return paths.split('\n').filter((path) => path !== '');
}

describe('the image', () => {
  test('runs the controller, as a user who owns nothing', async () => {
    const { Entrypoint, Cmd, User } = image.config;
    expect(User).toBe('65532:65532');
    expect(await found('(', '-not', '-uid', '0', '-o', '-not', '-gid', '0', ')')).toEqual([]);
    expect(await found('-not', '-type', 'l', '-perm', '/022')).toEqual(['/tmp']);
    const help = await image.run(...Entrypoint, ...Cmd, '--help');
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout).toContain('reconcile the CiJobs of a Kubernetes cluster');
    const { version } = (await readJson('package.json')) as { version: string };
    expect(await image.run(...Entrypoint, '--version')).toMatchObject({ code: 0, stdout: `${version}\n` });
  });

  test('has the very Node that the tests run on, by its hash, for both architectures', async () => {
    const { devDependencies } = (await readJson('package.json')) as {
      devDependencies: Record<string, string>;
    };
    const node = devDependencies['node'] ?? '';
    expect((await image.run('node', '--version')).stdout).toBe(`v${node}\n`);
    const { packages } = (await readJson('deploy/image/package-lock.json')) as {
      packages: Record<string, { version?: string; integrity?: string }>;
    };
    for (const architecture of ['arm64', 'x64']) {
      const { version, integrity } = packages[`node_modules/node-linux-${architecture}`] ?? {};
      expect(version).toBe(node);
      expect(integrity).toMatch(/^sha512-/);
    }
  });

  test('has no program but Node: no shell, no package manager, nothing that makes anybody root', async () => {
    const programs = await found(
      '-path',
      join(image.root, 'app'),
      '-prune',
      '-o',
      '-type',
      'f',
      '-perm',
      '/111',
    );
    const others = programs.filter((path) => !/\/(ld-linux-[^/]*|libc)\.so\.\d$/.test(path));
    expect(others).toEqual(['/usr/local/bin/node']);
    expect(await found('-perm', '/6000')).toEqual([]);
    expect((await image.run('sh', '-c', 'true')).code).toBe(127);
    const modules = await readdir(join(image.root, 'app/node_modules'));
    expect(modules).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(npm|vitest|typescript|eslint)$/)]),
    );
    expect(await readdir(join(image.root, 'app'))).toEqual([
      'LICENSE',
      'controller',
      'node_modules',
      'package.json',
      'sbom.spdx.json',
    ]);
  });

  test('carries lists of what is in it', async () => {
    const sbom = JSON.parse(await readFile(join(image.root, 'app/sbom.spdx.json'), 'utf8')) as {
      spdxVersion: string;
      packages: { name: string }[];
    };
    expect(sbom.spdxVersion).toBe('SPDX-2.3');
    const names = sbom.packages.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['cijob-controller', 'ssh2', 'zod']));
    expect(names).not.toContain('vitest');
    const status = join(image.root, 'var/lib/dpkg/status.d');
    const debian = (await readdir(status)).filter((name) => !/^gcc-\d+-base$/.test(name));
    expect(debian).toEqual(['base-files', 'ca-certificates', 'libc6', 'libgcc-s1', 'libstdc++6']);
    for (const name of debian) {
      const fields = await readFile(join(status, name), 'utf8');
      expect(fields).toMatch(new RegExp(`^Package: ${name.replaceAll('+', '\\+')}$`, 'm'));
      expect(fields).toMatch(/^Version: \d/m);
      expect(await found('-path', `*/usr/share/doc/${name}`), `the licence of ${name}`).toHaveLength(1);
    }
    expect(await readFile(join(image.root, 'etc/os-release'), 'utf8')).toMatch(/^ID=debian$/m);
  });

  test("trusts Debian's certificate authorities, beside those of Node", async () => {
    const count = `
      const { getCACertificates: list } = require('node:tls');
      const trusted = new Set(list());
      console.log(list('system').filter((authority) => trusted.has(authority)).length)`;
    const { stdout } = await image.run('node', '--eval', count);
    const file = join(image.root, 'etc/ssl/certs/ca-certificates.crt');
    expect(Number(stdout)).toBe((await readFile(file, 'utf8')).match(/BEGIN CERTIFICATE/g)?.length);
    expect(Number(stdout)).toBeGreaterThan(100);
  });

  test('is started by the Deployment as it would start itself', async () => {
    const deployment = parse(await readFile(join(repository, 'deploy/base/deployment.yaml'), 'utf8')) as {
      spec: {
        template: {
          spec: {
            containers: {
              command: string[];
              args: string[];
              image: string;
              ports: { containerPort: number }[];
            }[];
            securityContext: object;
          };
        };
      };
    };
    const { containers, securityContext } = deployment.spec.template.spec;
    const [container] = containers;
    expect(container?.command).toEqual(image.config.Entrypoint);
    expect(container?.args[0]).toBe(image.config.Cmd[0]);
    for (const { containerPort } of container?.ports ?? [])
      expect(image.config.ExposedPorts).toHaveProperty([`${containerPort}/tcp`]);
    const [user, group] = image.config.User.split(':').map(Number);
    expect(securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: user, runAsGroup: group });
    const { version } = (await readJson('package.json')) as { version: string };
    expect(container?.image).toBe(`cijob-controller:${version}`);
  });

  test('leads a cluster from a pod, whose ServiceAccount is all it is given', async () => {
    await using stack = new AsyncDisposableStack();
    const controlPlane = stack.use(await ControlPlane.start());
    await controlPlane.kubectlOk(['apply', '--server-side', '-f', installFile]);
    await controlPlane.kubectlOk(['wait', '--for=condition=Established', 'crd', '--all']);
    const dir = await makeTempDir('pod');
    stack.defer(() => clearAway(dir));
    const source = join(dir, 'service-account');
    await writeServiceAccount(controlPlane, source);
    const { hostname, port } = new URL(controlPlane.server);
    const program = image.command(image.config.Entrypoint, {
      env: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
      mount: { source, path: '/var/run/secrets/kubernetes.io/serviceaccount' },
    });
    const logFile = join(dir, 'controller.log');
    const controller = stack.use(
      await ControllerProcess.start({ program, namespace: systemNamespace, logFile }),
    );
    expect(await controller.get('/readyz')).toMatchObject({ status: 200 });
    const status = await readFile(`/proc/${controller.daemon.pid}/status`, 'utf8');
    expect(status).toMatch(/^Uid:(\t65532){4}$/m);
    expect(status).toMatch(/^CapEff:\t0+$/m);
    await controller.stop();
    expect(controller.daemon.exitCode).toBe(0);
  });
});

/** What the kubelet mounts into a pod of the controller's. */
async function writeServiceAccount(controlPlane: ControlPlane, dir: string): Promise<void> {
  const file = await controlPlane.serviceAccountKubeconfig(systemNamespace, 'cijob-controller');
  const { clusters, users } = JSON.parse(await readFile(file, 'utf8')) as {
    clusters: { cluster: { 'certificate-authority-data': string } }[];
    users: { user: { token: string } }[];
  };
  const authority = clusters[0]?.cluster['certificate-authority-data'] ?? '';
  await mkdir(dir, { mode: 0o755 });
  await writeFile(join(dir, 'ca.crt'), Buffer.from(authority, 'base64'));
  await writeFile(join(dir, 'token'), users[0]?.user.token ?? '');
  await writeFile(join(dir, 'namespace'), systemNamespace);
}

describe('deploy/image/build', () => {
  test('says how it is used when it is given no name', async () => {
    const usage = { code: 64, stdout: '', stderr: 'build: usage: deploy/image/build NAME:TAG\n' };
    expect(await run(script, [])).toMatchObject(usage);
    expect(await run(script, ['--help'])).toMatchObject(usage);
  });

  test('refuses a Node of another hash', async () => {
    const dir = await makeTempDir('hash');
    try {
      await cp(join(repository, 'deploy/image'), join(dir, 'deploy/image'), { recursive: true });
      await cp(join(repository, '.npmrc'), join(dir, '.npmrc'));
      const lock = join(dir, 'deploy/image/package-lock.json');
      const text = await readFile(lock, 'utf8');
      await writeFile(
        lock,
        text.replaceAll(/"sha512-./g, (start) =>
          start.endsWith('A') ? start.replace(/A$/, 'B') : start.replace(/.$/, 'A'),
        ),
      );
      const refused = await run(join(dir, 'deploy/image/build'), ['never-built'], { env: { TMPDIR: dir } });
      expect(refused.code).toBe(1);
      expect(refused.stderr).toContain('it has not the hash in package-lock.json');
    } finally {
      await clearAway(dir);
    }
  });

  test('has nothing for shellcheck to say', async () => {
    await ensurePackages(['shellcheck'], { reason: 'to check the script that builds the image' });
    expect(await run('shellcheck', [script])).toMatchObject({ code: 0, stdout: '' });
  });
});
