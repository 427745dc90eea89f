import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { run, runOk } from '../../support/command.ts';
import { ensurePackages } from '../../support/debian-packages.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { addSource, startBench, type Bench } from '../support/bench.ts';
import { manifest } from '../support/cluster.ts';
import { hostManifests } from '../support/hosts.ts';
import { Guest } from '../guest/guest.ts';
import { evaluate, nixDir, nixPackages } from './nix.ts';

const shebang = '#!/run/current-system/sw/bin/bash\n';
const mounts = {
  deps: '/staged/linux-rust/workspace-deps',
  build: '/staged/linux-rust/workspace-build',
};

let bench: Bench;
let dir: string;
const staged = { snapshot: '', deps: '', build: '' };

/** What a build of a Rust workspace leaves: a few programs, and lists of them. */
const artifacts: Record<string, string> = {
  'tests/first': `${shebang}echo "first in $PWD with $*"; cat\n`,
  'tests/fails': `${shebang}echo failing >&2; exit 42\n`,
  'tests/never': `${shebang}echo never\n`,
  'tests/passing.manifest': '# both pass\ntests/first\n\ntests/first',
  'tests/failing.manifest': 'tests/first\ntests/fails\ntests/never\n',
  'tests/empty.manifest': '# nothing\n',
  'scripts/smoke.py': 'import sys\nprint("python", sys.executable, sys.argv[1:])\n',
};

beforeAll(async () => {
  await ensurePackages(nixPackages, { reason: 'to evaluate the Nix expressions' });
  bench = await startBench();
  dir = await makeTempDir('staged');
  const artifactsDir = await addSource(bench.host, 'artifacts', artifacts);
  for (const name of ['first', 'fails', 'never']) await chmod(join(artifactsDir, 'tests', name), 0o555);
  const depsDir = await addSource(bench.host, 'crates', { 'deps/crate': 'built\n' });
  staged.snapshot = await addSource(bench.host, 'snapshot', { 'Cargo.toml': '' });
  staged.build = join(bench.host.sources, 'build');
  staged.deps = join(bench.host.sources, 'deps');

  const expression = (output: string) => `(import ${nixDir}/ci/linux-rust.nix {
    inherit pkgs;
    cargoArtifacts = "${depsDir}";
    testArtifacts = "${artifactsDir}";
    runtimeLibraries = [ pkgs.openssl pkgs.git ];
    lanes = {
      environment.script = ''
        echo "PATH=$PATH"; echo "LD_LIBRARY_PATH=$LD_LIBRARY_PATH"; echo "LIBCLANG_PATH=$LIBCLANG_PATH"
      '';
      passing = { manifest = "tests/passing.manifest"; args = [ "--test-threads" "it's 1" ]; };
      failing.manifest = "tests/failing.manifest";
      empty.manifest = "tests/empty.manifest";
      missing.manifest = "tests/none.manifest";
      python = { python = "scripts/smoke.py"; args = [ "a b" ]; };
      node.node = "scripts/smoke.mjs";
    };
  }).${output}.script`;
  for (const [output, out] of [
    ['workspaceDeps', staged.deps],
    ['workspaceBuild', staged.build],
  ] as const) {
    // The very script that a Nix builder would run, with files for its inputs.
    const script = (await evaluate(dir, expression(output))) as string;
    await runOk('bash', ['-euo', 'pipefail', '-c', script], { env: { out } });
  }
}, 600_000);
afterAll(async () => {
  await bench.stop();
  await clearAway(dir);
});

describe('staged outputs', () => {
  test('have a wrapper for each lane: executable text with the shebang of the guest', async () => {
    const names = await readdir(join(staged.build, 'bin'));
    expect(names.sort()).toEqual(
      ['environment', 'passing', 'failing', 'empty', 'missing', 'python', 'node', 'test-manifest']
        .map((lane) => `run-${lane}`)
        .sort(),
    );
    for (const name of names) {
      const path = join(staged.build, 'bin', name);
      expect((await stat(path)).mode & 0o7777).toBe(0o555);
      const text = await readFile(path, 'utf8');
      expect(text.startsWith(shebang)).toBe(true);
      expect(text).not.toMatch(/\/mnt\/pikaci|HOST_NIX_STORE_ROOT|\/nix\/store\/\S*bash/);
    }
    const node = await readFile(join(staged.build, 'bin/run-node'), 'utf8');
    expect(node).toContain(
      "exec /run/current-system/sw/bin/node '/staged/linux-rust/workspace-build/scripts/smoke.mjs'",
    );
  });

  test('say which guest they need', async () => {
    const manifest = async (path: string) => JSON.parse(await readFile(path, 'utf8')) as unknown;
    expect(await manifest(join(staged.build, 'pikaci-payload.json'))).toEqual({
      schema_version: 1,
      guest_interface: 1,
      name: 'workspace',
      kind: 'workspace-build',
      lanes: ['empty', 'environment', 'failing', 'missing', 'node', 'passing', 'python'],
    });
    expect(await manifest(join(staged.deps, 'pikaci-payload.json'))).toMatchObject({
      guest_interface: 1,
      kind: 'workspace-deps',
      lanes: [],
    });
  });

  test('bring what was built', async () => {
    expect(await readFile(join(staged.deps, 'deps/crate'), 'utf8')).toBe('built\n');
    expect(await readFile(join(staged.build, 'tests/fails'), 'utf8')).toBe(artifacts['tests/fails']);
  });

  test('refuse a lane that says nothing', async () => {
    const lane = `(import ${nixDir}/ci/linux-rust.nix {
      inherit pkgs; cargoArtifacts = "/x"; testArtifacts = "/y"; lanes.odd = { };
    }).workspaceBuild.script`;
    await expect(evaluate(dir, lane)).rejects.toThrow('lane odd: give one of script, manifest, python, node');
  });
});

describe('staged wrappers in a guest', () => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.launch(bench.host, 'systemd', {
      '/workspace/snapshot': staged.snapshot,
      [mounts.deps]: staged.deps,
      [mounts.build]: staged.build,
    });
  });
  beforeEach(() => guest.reset());
  afterAll(() => guest.delete());

  const lane = (name: string, environment: Record<string, string> = {}) =>
    guest.run({
      command: `${mounts.build}/bin/run-${name}`,
      environment: {
        PIKACI_INCUS_EXPECT_MOUNTS: `/workspace/snapshot:${mounts.deps}:${mounts.build}`,
        ...environment,
      },
    });

  test('set the environment: PostgreSQL and the guest first, store paths as they are', async () => {
    const store = '/nix/store/00000000000000000000000000000000';
    const { log, result } = await lane('environment', { LD_LIBRARY_PATH: '/own/lib' });
    expect(result.status).toBe('passed');
    const [path, libraries, clang] = log.split('\n');
    expect(path?.startsWith(`PATH=${store}-postgresql/bin:/run/current-system/sw/bin:`)).toBe(true);
    expect(libraries).toBe(`LD_LIBRARY_PATH=${store}-openssl/lib:${store}-git/lib:/own/lib`);
    expect(clang).toBe(`LIBCLANG_PATH=${store}-libclang-lib/lib`);
  });

  test("put the graphics driver's libraries before all others, where there is one", async () => {
    await guest.shellOk('mkdir -p /run/opengl-driver/lib');
    const { log } = await lane('environment');
    await guest.shellOk('rm -r /run/opengl-driver');
    expect(log).toContain('\nLD_LIBRARY_PATH=/run/opengl-driver/lib:/nix/store/');
  });

  test('run each executable of a manifest, with the arguments of the lane', async () => {
    const { log, result } = await lane('passing');
    expect(result.status).toBe('passed');
    const first = [
      `[pikaci] running ${mounts.build}/tests/first`,
      "first in /workspace/snapshot with --test-threads it's 1",
    ];
    expect(log.split('\n')).toEqual([...first, ...first, '[pikaci] 2 executables passed', '']);
  });

  test('stop at the first that fails, with its code', async () => {
    const { log, result, code } = await lane('failing');
    expect(code).toBe(42);
    expect(result).toMatchObject({ status: 'failed', exit_code: 42 });
    expect(log).toContain(`failing\n[pikaci] ${mounts.build}/tests/fails exited with 42\n`);
    expect(log).not.toContain('never');
  });

  test('fail where a manifest is empty, or missing', async () => {
    const empty = await lane('empty');
    expect(empty.result).toMatchObject({ status: 'failed', exit_code: 1 });
    expect(empty.log).toContain('lists no executable');
    await guest.reset();
    expect((await lane('missing')).result.status).toBe('failed');
  });

  test("run the guest's python3", async () => {
    const { log } = await lane('python');
    expect(log).toMatch(/^python \/(run\/current-system\/sw|usr)\/bin\/python3\S* \['a b'\]\n$/);
  });
});

describe('a CiJob of staged outputs', () => {
  /** `cijob run` with the three mounts, which need no paths of their own. */
  const job = async (command: string) => {
    const mounts = [
      { name: 'snapshot', source: staged.snapshot },
      { name: 'workspace-deps', source: staged.deps },
      { name: 'workspace-build', source: staged.build },
    ];
    const [, host] = await hostManifests('build-1', bench.host);
    const files = { job: join(dir, 'job.yaml'), host: join(dir, 'host.yaml') };
    await writeFile(
      files.job,
      JSON.stringify(manifest('staged', { command, mounts, image: 'pikaci/systemd' })),
    );
    await writeFile(files.host, JSON.stringify(host));
    const main = join(import.meta.dirname, '../../../controller/main.ts');
    const identity = ['--identity', bench.host.sshd.privateKeyFile];
    return run(process.execPath, [main, 'run', '-f', files.job, '--host', files.host, ...identity]);
  };

  test('passes when each executable of the manifest does', async () => {
    const { code, stdout } = await job(`${mounts.build}/bin/run-passing && cat ${mounts.deps}/deps/crate`);
    expect(stdout).toContain('[pikaci] 2 executables passed\nbuilt\n');
    expect(code).toBe(0);
  });

  test('fails with the code of the one that does not', async () => {
    const { code, stdout } = await job(`${mounts.build}/bin/run-failing`);
    expect(stdout).toContain(`${mounts.build}/tests/fails exited with 42\n`);
    expect(stdout).not.toContain('never');
    expect(code).toBe(42);
  });
});
