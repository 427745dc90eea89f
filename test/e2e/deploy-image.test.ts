import { cp, mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { run, runOk } from '../support/command.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/*
 * deploy/Dockerfile without a container engine: its steps are carried out in a directory, in their order, and what
 * comes out is run as the user it names. What the base image holds is not seen here.
 */

const repository = join(import.meta.dirname, '../..');
let dir: string;
let app: string;
let lines: string[];

beforeAll(async () => {
  dir = await makeTempDir('image');
  app = join(dir, 'app');
  const text = await readFile(join(repository, 'deploy/Dockerfile'), 'utf8');
  lines = text.replaceAll('\\\n', ' ').split('\n');
  await mkdir(app);
  for (const file of copied()) {
    await mkdir(dirname(join(app, file)), { recursive: true });
    await cp(join(repository, file), join(app, file), { recursive: true });
  }
  const steps = lines.find((line) => line.startsWith('RUN npm ci'))?.slice('RUN '.length) ?? 'false';
  const path = `${join(repository, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}`;
  await runOk('sh', ['-c', steps], { cwd: app, env: { PATH: path, npm_config_prefer_offline: 'true' } });
  await runOk('chmod', ['-R', 'a+rX', dir]);
});
afterAll(() => clearAway(dir));

/** What is copied from the repository, in all stages. */
function copied(): string[] {
  return lines
    .filter((line) => line.startsWith('COPY ') && !line.startsWith('COPY --from'))
    .flatMap((line) => line.split(' ').slice(1, -1));
}

/** The words of an instruction in its JSON form. */
const words = (instruction: string) =>
  JSON.parse(
    lines.find((line) => line.startsWith(`${instruction} [`))?.slice(instruction.length) ?? '[]',
  ) as string[];

describe('the image', () => {
  test('runs the controller, with no more packages than it needs, as a user who owns nothing', async () => {
    const user = /^USER (\d+):(\d+)$/m.exec(lines.join('\n'));
    expect(Number(user?.[1])).toBeGreaterThan(1000);
    const [, ...args] = words('ENTRYPOINT');
    const as = ['--reuid', user?.[1] ?? '', '--regid', user?.[2] ?? '', '--clear-groups'];
    const help = await run('setpriv', [...as, process.execPath, ...args, ...words('CMD'), '--help'], {
      cwd: app,
    });
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout).toContain('reconcile the CiJobs of a Kubernetes cluster');
    const { stdout } = await run('ls', [join(app, 'node_modules')]);
    expect(stdout).not.toMatch(/^(vitest|typescript|eslint|node)$/m);
  });

  test('carries a list of what is in it', async () => {
    const sbom = JSON.parse(await readFile(join(app, 'sbom.spdx.json'), 'utf8')) as {
      spdxVersion: string;
      packages: { name: string }[];
    };
    expect(sbom.spdxVersion).toBe('SPDX-2.3');
    const names = sbom.packages.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['cijob-controller', 'ssh2', 'zod']));
    expect(names).not.toContain('vitest');
  });

  test('is started by the Deployment as it would start itself', async () => {
    const deployment = parse(await readFile(join(repository, 'deploy/base/deployment.yaml'), 'utf8')) as {
      spec: {
        template: {
          spec: {
            containers: { command: string[]; args: string[]; image: string }[];
            securityContext: object;
          };
        };
      };
    };
    const { containers, securityContext } = deployment.spec.template.spec;
    expect(containers[0]?.command).toEqual(words('ENTRYPOINT'));
    expect(containers[0]?.args[0]).toBe(words('CMD')[0]);
    expect(securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532 });
    const { version } = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as {
      version: string;
    };
    expect(containers[0]?.image).toBe(`cijob-controller:${version}`);
  });

  test('has the very Node that the tests run on', async () => {
    const { devDependencies } = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as {
      devDependencies: Record<string, string>;
    };
    const bases = lines.filter((line) => line.startsWith('FROM ')).map((line) => line.split(' ')[1]);
    const base = `node:${devDependencies['node'] ?? ''}-bookworm-slim`;
    expect(bases).toEqual([base, base]);
  });

  test('lets nothing else of the repository into the build', async () => {
    const ignore = await readFile(join(repository, 'deploy/Dockerfile.dockerignore'), 'utf8');
    const [everything, ...excepted] = ignore.trim().split('\n');
    expect(everything).toBe('*');
    expect(excepted.map((line) => line.slice(1)).sort()).toEqual([...new Set(copied())].sort());
  });
});
