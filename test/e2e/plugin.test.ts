import { copyFile, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run, runOk, type CommandResult } from '../support/command.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { manifest } from './support/cluster.ts';

/* `kubectl cijob` with the real kubectl and API server, and completion in the real shells. No job runs. */

const root = join(import.meta.dirname, '../..');
let dir: string;
let bin: string;
let controlPlane: ControlPlane;

beforeAll(async () => {
  dir = await makeTempDir('plugin');
  bin = join(dir, 'bin');
  await mkdir(bin);
  // As npm links them, and as people do.
  for (const name of ['cijob', 'kubectl-cijob', 'kubectl_complete-cijob']) {
    await symlink(join(root, 'controller/cijob'), join(bin, name));
  }
  controlPlane = await ControlPlane.start();
  await symlink(controlPlane.binaries.kubectl, join(bin, 'kubectl'));
  const crds = join(root, 'crds');
  const files = (await readdir(crds)).flatMap((file) => ['-f', join(crds, file)]);
  await controlPlane.kubectlOk(['apply', ...files]);
  await controlPlane.kubectlOk(['wait', '--for=condition=Established', ...files]);
  const items = ['alpha', 'beta'].map((name) => manifest(name, { command: 'true' }));
  const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
  await controlPlane.kubectlOk(['apply', '-f', '-'], { input });
  const status = {
    phase: 'Failed',
    exitCode: 3,
    completionTime: '2026-01-01T00:00:00Z',
    failure: {
      class: 'Test',
      reason: 'NonZeroExitCode',
      message: 'exit code 3',
      excerpt: 'its last words\n',
    },
  };
  const patch = ['patch', 'cijob', 'beta', '--subresource=status', '--type=merge', '-p'];
  await controlPlane.kubectlOk([...patch, JSON.stringify({ status })]);
}, 300_000);
afterAll(async () => {
  await controlPlane.stop();
  await clearAway(dir);
});

/** A program as somebody runs it who has ours in the PATH, before the machine's own. */
const inShell = (file: string, ...args: string[]): Promise<CommandResult> =>
  run(file, args, {
    env: {
      PATH: `${bin}:/usr/bin:/bin`,
      HOME: dir,
      KUBECONFIG: controlPlane.adminKubeconfig,
      KUBECACHEDIR: join(dir, 'cache'),
    },
  });

describe('kubectl cijob', () => {
  test('gets, describes and prints the end of the log', async () => {
    const got = await inShell('kubectl', 'cijob', 'get');
    expect(got).toMatchObject({ code: 0, stderr: '' });
    expect(got.stdout).toMatch(/^alpha +Pending[\s\S]*^beta +Failed +NonZeroExitCode/m);
    const described = await inShell('kubectl', 'cijob', 'describe', 'beta');
    expect(described).toMatchObject({ code: 0 });
    expect(described.stdout).toContain('Failure:     Test: NonZeroExitCode: exit code 3\n');
    expect(await inShell('kubectl', 'cijob', 'logs', 'beta')).toMatchObject({
      ...{ code: 0, stdout: 'its last words\n' },
    });
  });

  test('ends with the code of the program: 1 for what is not there, 64 for what it does not know', async () => {
    expect(await inShell('kubectl', 'cijob', 'describe', 'nope')).toMatchObject({
      ...{ code: 1, stdout: '', stderr: 'cijob: there is no CiJob nope in namespace default\n' },
    });
    expect(await inShell('kubectl', 'cijob', 'get', '--no-such-flag')).toMatchObject({ code: 64 });
  });

  test('is completed by kubectl itself', async () => {
    const complete = async (...words: string[]) => (await inShell('kubectl', '__complete', ...words)).stdout;
    expect(await complete('cijob', 'des')).toMatch(/^describe\t.*\n:4\n/);
    expect(await complete('cijob', 'logs', 'al')).toBe('alpha\n:4\n');
    expect(await complete('cijob', 'get', '-o', 'w')).toBe('wide\n:4\n');
  });
});

describe('on a machine', () => {
  /** The program as it is installed elsewhere, without the Node of the development packages, and one in the PATH. */
  async function installedWith(name: string, node: string): Promise<CommandResult> {
    const place = join(dir, name);
    await mkdir(join(place, 'controller'), { recursive: true });
    await mkdir(join(place, 'bin'));
    await copyFile(join(root, 'controller/cijob'), join(place, 'controller/cijob'));
    await symlink('../controller/cijob', join(place, 'bin/cijob'));
    if (node !== '') await writeFile(join(place, 'bin/node'), node, { mode: 0o755 });
    for (const tool of ['sh', 'dirname', 'readlink']) await symlink(`/bin/${tool}`, join(place, 'bin', tool));
    return run(join(place, 'bin/cijob'), ['get'], { env: { PATH: join(place, 'bin') } });
  }
  const line = (version: string) => ({
    code: 69,
    stdout: '',
    stderr: `cijob: Node.js 24 or newer is needed, and this machine's is ${version}: install it, or put it first in PATH\n`,
  });

  test('with an older Node, it says in a line what is needed', async () => {
    expect(await installedWith('old', '#!/bin/sh\necho v20.20.2\n')).toMatchObject(line('v20.20.2'));
  });

  test('without any, too', async () => {
    expect(await installedWith('none', '')).toMatchObject(line('none'));
  });

  test('with a newer one, it runs on that', async () => {
    const node = '#!/bin/sh\n[ "$1" = --version ] && echo v26.0.0 || echo "ran $1 $2"\n';
    const { code, stdout } = await installedWith('new', node);
    expect({ code, stdout }).toEqual({ code: 0, stdout: `ran ${dir}/new/controller/main.ts get\n` });
  });
});

test('it starts quicker the second time, by what it keeps in the cache directory of whoever runs it', async () => {
  const [home, own] = [join(dir, 'home'), join(dir, 'own')];
  const version = (env: Record<string, string>) =>
    runOk(join(root, 'controller/cijob'), ['version'], {
      env: { NODE_DISABLE_COMPILE_CACHE: undefined, ...env },
    });
  await version({ HOME: home, XDG_CACHE_HOME: '' });
  expect(await readdir(join(home, '.cache/cijob'))).not.toEqual([]);
  await version({ HOME: home, XDG_CACHE_HOME: own });
  expect(await readdir(own)).toEqual(['cijob']);
  await version({ HOME: home, NODE_COMPILE_CACHE: join(own, 'elsewhere') });
  expect((await readdir(own)).sort()).toEqual(['cijob', 'elsewhere']);
});

describe('completion', () => {
  const cases: [line: string, expected: string[]][] = [
    ['cijob des', ['describe']],
    ['cijob logs --fol', ['--follow']],
    ['cijob logs al', ['alpha']],
    ['cijob describe ', ['alpha', 'beta']],
    ['cijob get -o w', ['wide']],
    ['cijob completion ', ['bash', 'fish', 'zsh']],
  ];
  /** The first word of each line that a shell printed. */
  const wordsOf = ({ stdout }: CommandResult) =>
    stdout
      .split('\n')
      .map((one) => one.split('\t')[0]?.trim() ?? '')
      .filter((word) => word !== '')
      .sort();

  test.each(cases)('in bash: %j', async (typed, expected) => {
    const words = typed.split(' ');
    const script = `source <(cijob completion bash)
      COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cijob; printf '%s\\n' "\${COMPREPLY[@]}"`;
    expect(wordsOf(await inShell('bash', '-c', script, 'bash', ...words))).toEqual(expected);
  });

  test.each(cases)('in fish: %j', async (typed, expected) => {
    const script = `cijob completion fish | source; complete -C '${typed}'`;
    expect(wordsOf(await inShell('fish', '--no-config', '-c', script))).toEqual(expected);
  });

  test.each(cases)('in zsh: %j', async (typed, expected) => {
    // The shell's own completion runs, on a terminal of its own; what it would offer is printed instead of shown.
    const script = `zmodload zsh/zpty
      zpty z zsh -f -i
      zpty -w z 'PROMPT=; autoload -U compinit; compinit -u; source <(cijob completion zsh)'
      zpty -w z 'compadd() { local -a got; builtin compadd -O got "$@"; (( $#got )) && print -l -- "<"$^got">" >>$HOME/offered; builtin compadd "$@" }'
      zpty -w z 'never() { zle complete-word; : >$HOME/done }; zle -N never; bindkey "^I" never; print ready >$HOME/ready'
      until [[ -s $HOME/ready ]]; do sleep 0.1; done
      zpty -w -n z '${typed}'$'\\t'
      until [[ -e $HOME/done ]]; do sleep 0.1; done
      zpty -d z
      sed -n 's/^<\\(.*\\)>$/\\1/p' $HOME/offered | sort -u
      rm -f $HOME/offered $HOME/done $HOME/ready`;
    expect(wordsOf(await inShell('zsh', '-f', '-c', script))).toEqual(expected);
  });
});
