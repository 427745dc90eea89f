import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { issueCertificate, makeAuthority } from '../support/certificates.ts';
import { run, type CommandOptions, type CommandResult } from '../support/command.ts';
import { freePort } from '../support/free-port.ts';
import { clearAway } from '../support/left-under.ts';
import { OwnAddress } from '../support/own-address.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually } from './support/cluster.ts';

/* The controller's server, reached with nothing but a kubeconfig: through the API server's proxy. */

const main = join(import.meta.dirname, '../../controller/main.ts');
const deploy = join(import.meta.dirname, '../../deploy');

describe("the controller's server behind the API server's proxy, on real parts", () => {
  let dir: string;
  let bench: Bench;
  let cluster: Cluster;
  let own: OwnAddress;
  let port: number;
  let authority: string;
  /** Kubeconfigs of an admin, of an editor and of a viewer with the way to the server, and of an editor without it. */
  let owner: string;
  let editor: string;
  let viewer: string;
  let stranger: string;

  beforeAll(async () => {
    dir = await makeTempDir('shell');
    bench = await startBench({ controlPlane: true });
    const ca = await makeAuthority(dir);
    own = await OwnAddress.add();
    const addresses = [own.address];
    const serving = await issueCertificate(ca, { dir, name: 'logs', user: 'logs', addresses });
    authority = ca.certificate;
    port = await freePort();
    cluster = await Cluster.start(bench, {
      flags: [
        ...['--log-dir', join(dir, 'kept'), '--log-address', `${own.address}:${port}`],
        ...['--tls-cert', serving.certificate, '--tls-key', serving.key],
      ],
    });
    for (const file of ['base/user-roles.yaml', 'components/logs/proxy-role.yaml'])
      await cluster.kubectl('--namespace=cijob-system', 'apply', '-f', join(deploy, file));
    await exposeServer();
    owner = await account('admin', 'cijob-admin');
    editor = await account('editor', 'cijob-editor');
    viewer = await account('viewer', 'cijob-viewer');
    stranger = await account('stranger', 'cijob-editor', false);
  });
  afterAll(async () => {
    await cluster.stop();
    await own[Symbol.asyncDispose]();
    await bench.stop();
    await clearAway(dir);
  });

  /** The Service, and what the other parts of a cluster make of it: the API server proxies to addresses of pods only. */
  async function exposeServer(): Promise<void> {
    const namespace = 'cijob-system';
    const metadata = { name: 'cijob-logs', namespace };
    const https = { name: 'https', port: 443, protocol: 'TCP' };
    const container = { name: 'controller', image: 'image' };
    const targetRef = { kind: 'Pod', ...metadata };
    const subset = { addresses: [{ ip: own.address, targetRef }], ports: [{ ...https, port }] };
    await cluster.applyObjects(
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace } },
      { apiVersion: 'v1', kind: 'Service', metadata, spec: { ports: [https] } },
    );
    await cluster.applyObjects(
      { apiVersion: 'v1', kind: 'Endpoints', metadata, subsets: [subset] },
      {
        ...{ apiVersion: 'v1', kind: 'Pod', metadata },
        spec: { containers: [container], automountServiceAccountToken: false },
      },
    );
    const status = { phase: 'Running', podIP: own.address, podIPs: [{ ip: own.address }] };
    const patch = ['--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
    await bench.controlPlane.kubectlOk(['-n', namespace, 'patch', 'pod', metadata.name, ...patch]);
  }

  async function account(name: string, role: string, proxied = true): Promise<string> {
    const subject = `--serviceaccount=ci:${name}`;
    await cluster.kubectl('create', 'serviceaccount', name);
    await cluster.kubectl('create', 'rolebinding', name, `--clusterrole=${role}`, subject);
    if (proxied) {
      const binding = ['create', 'rolebinding', `proxy-${name}`, '--role=cijob-logs-proxy', subject];
      await bench.controlPlane.kubectlOk(['--namespace=cijob-system', ...binding]);
    }
    return bench.controlPlane.serviceAccountKubeconfig('ci', name);
  }

  /** `cijob …` as somebody, who knows nothing but their kubeconfig. */
  function cijob(kubeconfig: string, args: string[], options: CommandOptions = {}): Promise<CommandResult> {
    const [subcommand = '', ...rest] = args;
    const all = [main, subcommand, '--kubeconfig', kubeconfig, '-n', 'ci', ...rest];
    return run(process.execPath, all, options);
  }

  /** `cijob shell …` in a terminal of script(1), typed into line by line. */
  function terminal(args: string[]) {
    const command = [process.execPath, main, 'shell', '--kubeconfig', editor, '-n', 'ci', ...args].join(' ');
    const log = join(dir, 'typescript');
    const child = spawn('script', ['-qec', `stty rows 33 cols 77; ${command}; stty -a`, log], {
      env: { ...process.env, TERM: 'xterm', SHELL: '/bin/sh' },
    });
    let seen = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (seen += text));
    const code = new Promise<number | null>((resolve) => child.once('close', resolve));
    return {
      code,
      type: (text: string) => child.stdin.write(text),
      seen: () => seen,
      until: (what: string | RegExp) =>
        eventually(
          () => Promise.resolve(seen),
          (text) => (typeof what === 'string' ? text.includes(what) : what.test(text)),
          `the terminal shows ${String(what)}`,
          30,
        ),
    };
  }

  const until = 'until test -e /tmp/go; do sleep 0.1; done';

  async function go(name: string): Promise<void> {
    expect(await cijob(editor, ['shell', name, '--', 'touch', '/tmp/go'])).toMatchObject({ code: 0 });
  }

  it('gives a log while it is written, to somebody who knows no server', async () => {
    await cluster.apply('talks', { command: `echo first; ${until}; echo last` });
    await cluster.until('talks', 'RunnerStarted');
    const args = [main, 'logs', '-f', 'talks', '--kubeconfig', viewer, '-n', 'ci'];
    const child = spawn(process.execPath, args);
    let seen = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (seen += text));
    const code = new Promise((resolve) => child.once('close', resolve));
    await eventually(
      () => Promise.resolve(seen),
      (text) => text === 'first\n',
      'the first line while the job runs',
      60,
    );
    expect((await cluster.job('talks')).status?.completionTime).toBeUndefined();
    await go('talks');
    expect(await code).toBe(0);
    expect(seen).toBe('first\nlast\n');
  });

  it('runs a command in the guest of a running job, and returns its exit code', async () => {
    await cluster.apply('runs', { command: until });
    await cluster.until('runs', 'RunnerStarted');
    expect(await cijob(editor, ['shell', 'runs', '--', 'sh', '-c', 'exit 7'])).toMatchObject({
      code: 7,
      stdout: '',
      stderr: '',
    });
    const who = ['shell', 'runs', '--', 'sh', '-c', 'id -u; id -g; pwd; echo wrong >&2'];
    expect(await cijob(editor, who)).toMatchObject({
      code: 0,
      stdout: '1000\n100\n/workspace/snapshot\n',
      stderr: 'wrong\n',
    });
    const asRoot = ['shell', '--root', 'runs', '--', 'id', '-u'];
    expect(await cijob(owner, asRoot)).toMatchObject({ code: 0, stdout: '0\n' });
    const refused = await cijob(editor, asRoot);
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(
      /^cijob: .*User "system:serviceaccount:ci:editor" cannot create resource "cijobs\/rootshell".*\n$/,
    );
    const input = 'x'.repeat(300_000);
    const copied = await cijob(editor, ['shell', 'runs', '--', 'cat'], { input });
    expect(copied).toMatchObject({ code: 0 });
    expect(copied.stdout === input).toBe(true);
    // The controller did not think the instance busy: the job ends at once.
    await go('runs');
    expect((await cluster.finished('runs')).status?.phase).toBe('Succeeded');
    const events = await cluster.kubectl(
      'get',
      'events',
      '-o',
      'jsonpath={.items[*].note}{.items[*].message}',
    );
    expect(events).toContain('system:serviceaccount:ci:editor opened a shell in instance');
    expect(await cijob(editor, ['shell', 'runs'])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^cijob: .*no instance that runs; `kubectl cijob hold`.*\n$/) as string,
    });
  });

  it('is a terminal for one who has a terminal, at a held job: prompt, size, Ctrl-C, exit code', async () => {
    await cluster.apply('held', { command: 'exit 1', holdOnFailureSeconds: 600 });
    await cluster.until('held', 'Failed');
    const at = terminal(['held']);
    await at.until(/\$ $/);
    at.type('stty size\r');
    await at.until('33 77');
    at.type('sleep 1000\r');
    await at.until('sleep 1000');
    at.type('\u0003');
    await at.until('^C');
    at.type('echo $((6 * 7)); exit 9\r');
    expect(await at.code).toBe(0);
    expect(at.seen()).toMatch(/\n42\r/);
    // What stty tells after it: the terminal is as it was.
    expect(at.seen()).toMatch(/[^-]icanon/);
    expect(await cijob(editor, ['shell', 'held', '--', 'sh', '-c', 'exit 7'])).toMatchObject({ code: 7 });
    const open = cijob(editor, ['shell', 'held', '--', 'sleep', '1000']);
    await eventually(
      () => cijob(editor, ['shell', 'held', '--', 'ps', '-o', 'args']),
      ({ stdout }) => stdout.includes('sleep 1000'),
      'the command in the guest',
      30,
    );
    const admin = bench.controlPlane.adminKubeconfig;
    expect(await cijob(admin, ['release', 'held'])).toMatchObject({ code: 0 });
    expect(await open).toMatchObject({
      code: 1,
      stderr: 'cijob: the shell ended: the job is over (Failed), and its instance gone\n',
    });
    await cluster.cleanedUp('held');
    expect(await cluster.instances()).toEqual([]);
  });

  it('leaves nothing in the guest of one who goes away', async () => {
    await cluster.apply('left', { command: until });
    await cluster.until('left', 'RunnerStarted');
    const child = spawn(process.execPath, [
      ...[main, 'shell', 'left', '--kubeconfig', editor, '-n', 'ci', '--', 'sleep', '4321'],
    ]);
    const running = () => cijob(editor, ['shell', 'left', '--', 'ps', '-o', 'args']);
    const shows = ({ stdout }: CommandResult) => stdout.includes('sleep 4321');
    await eventually(running, shows, 'the command in the guest', 30);
    child.kill('SIGKILL');
    await eventually(running, (answer) => answer.code === 0 && !shows(answer), 'the command: gone', 30);
    await go('left');
    await cluster.finished('left');
  });

  it('is refused to a viewer, and the way to it to whom nobody gave it', async () => {
    await cluster.apply('guarded', { command: until, timeoutSeconds: 600 });
    await cluster.until('guarded', 'RunnerStarted');
    const refused = await cijob(viewer, ['shell', 'guarded', '--', 'true']);
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(
      /^cijob: .*User "system:serviceaccount:ci:viewer" cannot create resource "cijobs\/shell".*\n$/,
    );
    for (const subcommand of ['shell', 'logs']) {
      const far = await cijob(stranger, [subcommand, 'guarded']);
      expect(far).toMatchObject({ code: 1, stdout: '' });
      expect(far.stderr).toContain(
        'the right to "get" "services/proxy" with the name "https:cijob-logs:https" in the namespace "cijob-system"',
      );
    }
    const elsewhere = ['--controller-namespace', 'ci'];
    expect((await cijob(stranger, ['logs', 'guarded', ...elsewhere])).stderr).toContain('services/proxy');
    await go('guarded');
    await cluster.finished('guarded');
  });

  it('lets the shipped Role through to that Service, and to nothing else', async () => {
    const get = (name: string) =>
      bench.controlPlane.kubectl([
        ...['--kubeconfig', viewer, 'get', '--raw'],
        `/api/v1/namespaces/cijob-system/services/${name}/proxy/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/x/log`,
      ]);
    // Their Authorization does not arrive: the server says that a token is needed.
    for (const name of ['https:cijob-logs:https', 'https:cijob-logs:443'])
      expect((await get(name)).stderr, name).toContain('a bearer token is needed');
    for (const name of [
      'https:cijob-logs:',
      'cijob-logs:https',
      'http:cijob-logs:https',
      'https:other:https',
    ])
      expect((await get(name)).stderr, name).toContain('cannot get resource "services/proxy"');
  });

  it('tells one with a client certificate what to do', async () => {
    const told = await cijob(bench.controlPlane.adminKubeconfig, ['shell', 'guarded', '--', 'true']);
    expect(told).toMatchObject({ code: 1, stdout: '' });
    expect(told.stderr).toContain('kubectl create token');
    const token = (await cluster.kubectl('create', 'token', 'editor')).trim();
    await cluster.apply('token', { command: until });
    await cluster.until('token', 'RunnerStarted');
    const env = { CIJOB_LOG_TOKEN: token };
    const admin = bench.controlPlane.adminKubeconfig;
    expect(await cijob(admin, ['shell', 'token', '--', 'touch', '/tmp/go'], { env })).toMatchObject({
      code: 0,
    });
    await cluster.finished('token');
  });

  it('is also reached by itself, and writes down no token', async () => {
    await cluster.apply('direct', { command: until });
    await cluster.until('direct', 'RunnerStarted');
    const env = { CIJOB_LOG_SERVER: `https://${own.address}:${port}`, CIJOB_LOG_CA: authority };
    const direct = await cijob(stranger, ['shell', 'direct', '--', 'sh', '-c', 'touch /tmp/go; exit 3'], {
      env,
    });
    expect(direct).toMatchObject({ code: 3, stderr: '' });
    await cluster.finished('direct');
    const log = JSON.stringify(cluster.controller.log());
    const audit = cluster.controller.log().filter((line) => line['audit'] === true);
    expect(audit.filter(({ job }) => job === 'ci/direct')).toMatchObject([
      {
        stage: 'opened',
        user: 'system:serviceaccount:ci:stranger',
        resource: 'cijobs/shell',
        verb: 'create',
      },
      { stage: 'closed', user: 'system:serviceaccount:ci:stranger', outcome: 'it exited with code 3' },
    ]);
    // Through the API server's proxy, too, the client's own address is known.
    const proxied = audit.find(({ job, stage }) => job === 'ci/runs' && stage === 'opened');
    expect(proxied?.['client']).toMatch(/^[0-9a-f.:]+ via [0-9a-f.:]+$/);
    expect(log).not.toMatch(/Bearer|eyJ/);
    expect(log).not.toContain(': typed');
  });
});
