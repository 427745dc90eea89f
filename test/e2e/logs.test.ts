import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { issueCertificate, makeAuthority } from '../support/certificates.ts';
import { run, type CommandResult } from '../support/command.ts';
import { freePort } from '../support/free-port.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster, eventually } from './support/cluster.ts';

const main = join(import.meta.dirname, '../../controller/main.ts');

describe('logs of jobs, on real parts', () => {
  let dir: string;
  let bench: Bench;
  let cluster: Cluster;
  let server: string;
  let authority: string;
  /** Kubeconfigs of somebody who may read logs in the namespace `ci`, and of somebody who may only see jobs. */
  let reader: string;
  let viewer: string;

  beforeAll(async () => {
    dir = await makeTempDir('logs');
    bench = await startBench({ controlPlane: true, hosts: 2 });
    const ca = await makeAuthority(dir);
    const serving = await issueCertificate(ca, { dir, name: 'logs', user: 'logs', addresses: ['127.0.0.1'] });
    authority = ca.certificate;
    const port = await freePort();
    server = `https://127.0.0.1:${port}`;
    cluster = await Cluster.start(bench, {
      flags: [
        ...['--log-dir', join(dir, 'kept'), '--log-address', `127.0.0.1:${port}`],
        ...['--tls-cert', serving.certificate, '--tls-key', serving.key],
      ],
    });
    reader = await account('reader', ['cijobs', 'cijobs/log']);
    viewer = await account('viewer', ['cijobs']);
  });
  afterAll(async () => {
    await cluster.stop();
    await bench.stop();
    await clearAway(dir);
  });

  async function account(name: string, resources: readonly string[]): Promise<string> {
    await cluster.kubectl('create', 'serviceaccount', name);
    const what = ['--verb=get,list,watch', `--resource=${resources.map(inGroup).join(',')}`];
    await cluster.kubectl('create', 'role', name, ...what);
    await cluster.kubectl('create', 'rolebinding', name, `--role=${name}`, `--serviceaccount=ci:${name}`);
    return bench.controlPlane.serviceAccountKubeconfig('ci', name);
  }

  const inGroup = (resource: string) => {
    const [plural = '', subresource] = resource.split('/');
    return `${plural}.ci.pikaci.dev${subresource === undefined ? '' : `/${subresource}`}`;
  };

  const env = () => ({ CIJOB_LOG_SERVER: server, CIJOB_LOG_CA: authority });

  /** `cijob …` as somebody. */
  function cijob(kubeconfig: string, ...args: string[]): Promise<CommandResult> {
    const all = [main, ...args, '--kubeconfig', kubeconfig, '-n', 'ci'];
    return run(process.execPath, all, { env: env() });
  }

  /** `cijob logs -f`, and what it has printed so far. */
  function follow(name: string) {
    const args = [main, 'logs', '-f', name, '--kubeconfig', reader, '-n', 'ci'];
    const child = spawn(process.execPath, args, { env: { ...process.env, ...env() } });
    const seen = { stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (seen.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (seen.stderr += text));
    const code = new Promise<number | null>((resolve) => child.once('close', resolve));
    return { seen, code };
  }

  it('is there after the instance is gone, whether the job failed, ran out of time or was cancelled', async () => {
    await cluster.applyAll({
      failed: { command: 'echo before the failure; exit 3' },
      late: { command: 'echo before the timeout; sleep 60', timeoutSeconds: 2 },
      called: { command: 'echo before the cancel; sleep 60' },
    });
    await cluster.until('called', 'RunnerStarted');
    await eventually(
      () => cijob(reader, 'logs', 'called'),
      ({ stdout }) => stdout.includes('before the cancel'),
      'the log of a running job',
      30,
    );
    expect(
      (
        await run(process.execPath, [
          main,
          'cancel',
          'called',
          '--kubeconfig',
          bench.controlPlane.adminKubeconfig,
          '-n',
          'ci',
        ])
      ).code,
    ).toBe(0);
    const jobs = await Promise.all(['failed', 'late', 'called'].map((name) => cluster.finished(name)));
    expect(jobs.map((job) => job.status?.failure?.class)).toEqual(['Test', 'Timeout', 'Cancelled']);
    expect(await cluster.instances()).toEqual([]);
    for (const [name, said] of [
      ['failed', 'before the failure'],
      ['late', 'before the timeout'],
      ['called', 'before the cancel'],
    ] as const) {
      expect(await cijob(reader, 'logs', name)).toMatchObject({
        code: 0,
        stdout: expect.stringContaining(said) as string,
      });
    }
  });

  it('shows lines while the job runs, to its end, and goes on from an offset', async () => {
    await cluster.apply('slow', {
      command: 'echo first; until test -e /tmp/go; do sleep 0.1; done; echo last',
    });
    const reading = follow('slow');
    await eventually(
      () => Promise.resolve(reading.seen.stdout),
      (text) => text.includes('first\n'),
      'the first line while the job runs',
      60,
    );
    expect((await cluster.job('slow')).status?.completionTime).toBeUndefined();
    const [instance = ''] = await cluster.instances();
    await bench.host.incus.execOk(bench.host.project, instance, ['touch', '/tmp/go']);
    expect(await reading.code).toBe(0);
    expect(reading.seen.stdout).toBe('first\nlast\n');
    expect((await cijob(reader, 'logs', 'slow', '--offset', '6')).stdout).toBe('last\n');
    expect((await cluster.finished('slow')).status?.log?.bytes).toBe(11);
  });

  it('is given only to whom RBAC lets get cijobs/log', async () => {
    await cluster.apply('guarded', { command: 'echo secret; exit 1' });
    await cluster.finished('guarded');
    const refused = await cijob(viewer, 'logs', 'guarded');
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(
      /^cijob: .*User "system:serviceaccount:ci:viewer" cannot get resource "cijobs\/log".*\n$/,
    );
    expect(await cijob(reader, 'logs', 'guarded')).toMatchObject({ code: 0, stdout: 'secret\n' });
  });

  it('shows to whom the right is taken away in the middle of a log or an archive that it was', async () => {
    const leaver = await account('leaver', ['cijobs']);
    await account('given', ['cijobs/log', 'cijobs/artifacts']);
    const given = ['--role=given', '--serviceaccount=ci:leaver'];
    await cluster.kubectl('create', 'rolebinding', 'given-to-leaver', ...given);
    await cluster.apply('large', {
      command: 'echo kept; head -c 32000000 /dev/urandom > /artifacts/large',
      artifacts: ['large'],
    });
    await cluster.apply('goes-on', { command: 'echo begun; sleep 600', timeoutSeconds: 900 });
    await cluster.finished('large');
    await cluster.until('goes-on', 'RunnerStarted');
    const start = (...args: string[]) => {
      const all = [main, ...args, '--kubeconfig', leaver, '-n', 'ci'];
      const child = spawn(process.execPath, all, { env: { ...process.env, ...env() } });
      const stderr: string[] = [];
      child.stderr.setEncoding('utf8').on('data', (text: string) => stderr.push(text));
      const code = new Promise<number | null>((resolve) => child.once('close', resolve));
      return { child, code, stderr };
    };
    const log = start('logs', '-f', 'goes-on');
    const archive = start('artifacts', 'large', '-o', '-');
    await Promise.all([log, archive].map(({ child }) => once(child.stdout, 'readable')));
    log.child.stdout.resume();
    await cluster.kubectl('delete', 'rolebinding', 'given-to-leaver');
    // The controller asks once a minute. Whoever reads the archive does so slowly.
    expect(await log.code).toBe(1);
    archive.child.stdout.resume();
    expect(await archive.code).toBe(1);
    for (const [{ stderr }, resource] of [
      [log, 'log'],
      [archive, 'artifacts'],
    ] as const) {
      expect(stderr.join('')).toContain(
        `User "system:serviceaccount:ci:leaver" cannot get resource "cijobs/${resource}"`,
      );
    }
    const admin = bench.controlPlane.adminKubeconfig;
    expect((await cijob(admin, 'cancel', 'goes-on')).code).toBe(0);
    await cluster.finished('goes-on');
  }, 180_000);

  it('is whole and without repetition when the controller is killed while it is written', async () => {
    const count = 200;
    await cluster.apply('killed', {
      command: `for i in $(seq ${count}); do echo line $i; sleep 0.04; done`,
    });
    const reading = follow('killed');
    await eventually(
      () => Promise.resolve(reading.seen.stdout),
      (text) => text.includes('line 20\n'),
      'some lines',
      60,
    );
    await cluster.controller.daemon.kill9();
    await cluster.controller.daemon.start();
    const job = await cluster.finished('killed');
    const whole = Array.from({ length: count }, (_, index) => `line ${index + 1}\n`).join('');
    expect(job.status?.phase).toBe('Succeeded');
    expect((await cijob(reader, 'logs', 'killed')).stdout).toBe(whole);
    // The one who followed saw the same, over the crash.
    expect(await reading.code).toBe(0);
    expect(reading.seen.stdout).toBe(whole);
  });

  it('goes with its job', async () => {
    await cluster.apply('brief', { command: 'echo gone soon' });
    await cluster.finished('brief');
    expect(await readdir(join(dir, 'kept', 'ci'))).toContain('brief');
    await cluster.kubectl('delete', 'cijob', 'brief');
    expect(await cijob(reader, 'logs', 'brief')).toMatchObject({
      code: 1,
      stderr: 'cijob: there is no CiJob brief in namespace ci\n',
    });
    // What is left of jobs that are gone is swept away when a controller begins.
    await cluster.controller.daemon.stop();
    await cluster.controller.daemon.start();
    await eventually(
      () => readdir(join(dir, 'kept', 'ci')),
      (names) => !names.includes('brief'),
      'the log of a deleted job: gone',
      30,
    );
  });

  it('falls back to the end of the log in the status where no log server can be reached', async () => {
    await cluster.apply('far', { command: 'echo only the end; exit 1' });
    await cluster.finished('far');
    const nobody = `https://127.0.0.1:${await freePort()}`;
    const all = [main, 'logs', 'far', '--server', nobody, '--kubeconfig', viewer, '-n', 'ci'];
    const answer = await run(process.execPath, all, { env: env() });
    expect(answer).toMatchObject({ code: 0, stdout: 'only the end\n' });
    expect(answer.stderr).toContain('this is the end of the log, as the status keeps it');
  });

  it('keeps a failed instance on hold until it is released', async () => {
    const admin = bench.controlPlane.adminKubeconfig;
    await cluster.apply('kept', { command: 'until test -e /tmp/go; do sleep 0.1; done; exit 1' });
    await cluster.until('kept', 'RunnerStarted');
    expect((await cijob(admin, 'hold', 'kept')).code).toBe(0);
    const [instance = ''] = await cluster.instances();
    await bench.host.incus.execOk(bench.host.project, instance, ['touch', '/tmp/go']);
    await cluster.until('kept', 'Failed');
    const told = await cijob(admin, 'describe', 'kept');
    expect(told.stdout).toContain(`incus exec ${instance} --project ${bench.host.project} -- bash`);
    expect(await cluster.instances()).toEqual([instance]);
    expect((await cijob(admin, 'release', 'kept')).code).toBe(0);
    await cluster.cleanedUp('kept');
    expect(await cluster.instances()).toEqual([]);
  });

  it('runs a finished job again under a new name', async () => {
    const admin = bench.controlPlane.adminKubeconfig;
    await cluster.apply('flaky', { command: 'echo again' });
    await cluster.finished('flaky');
    expect(await cijob(admin, 'retry', 'flaky')).toMatchObject({ code: 0, stdout: 'flaky-retry-1\n' });
    expect((await cluster.finished('flaky-retry-1')).status?.phase).toBe('Succeeded');
    expect((await cijob(admin, 'retry', 'flaky-retry-1')).stdout).toBe('flaky-retry-2\n');
    await cluster.finished('flaky-retry-2');
    const shown = await cijob(admin, 'get');
    expect(shown.stdout).toMatch(/^NAME +PHASE +REASON +HOST +EXIT +RAN +AGE\n/);
    expect(shown.stdout).toMatch(/^flaky-retry-1 +Succeeded +build-1 +0 /m);
    expect((await cijob(admin, 'hosts')).stdout).toMatch(/^build-1 +True +\d+\/\d+ /m);
  });

  it('keeps the log of each job on a host where every stream takes one of the ten sessions of sshd', async () => {
    await cluster.putHost('by-sudo', bench.hosts[1]!, { via: 'Sudo', slots: 6, labels: { via: 'Sudo' } });
    await cluster.hostReady('by-sudo');
    const names = Array.from({ length: 12 }, (_, index) => `by-sudo-${index}`);
    const job = {
      command: 'for i in 1 2 3 4; do echo line $i; sleep 0.5; done; exit 4',
      hostSelector: { matchLabels: { via: 'Sudo' } },
    };
    await cluster.applyAll(Object.fromEntries(names.map((name) => [name, job])));
    for (const name of names) {
      const { status } = await cluster.finished(name, 100);
      expect(status, name).toMatchObject({ phase: 'Failed', exitCode: 4, attempt: 1 });
      const { stdout } = await cijob(reader, 'logs', name);
      expect(stdout, name).toBe('line 1\nline 2\nline 3\nline 4\n');
    }
    const trouble = cluster.controller.log().filter((line) => line['outcome'] === 'unknown');
    expect(trouble).toEqual([]);
  }, 150_000);
});
