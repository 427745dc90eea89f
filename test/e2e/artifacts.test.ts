import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { filesIn } from '../support/archives.ts';
import { issueCertificate, makeAuthority } from '../support/certificates.ts';
import { run, type CommandResult } from '../support/command.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { freePort } from '../support/free-port.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { Cluster } from './support/cluster.ts';

const main = join(import.meta.dirname, '../../controller/main.ts');

/** Leaves files to keep, files to leave, and what must not be taken for a file. */
const command = [
  'cd /artifacts',
  'mkdir -p out/deep target',
  'seq 1 20000 > out/numbers.txt',
  "printf 'a\\000b' > out/deep/binary.bin",
  'echo no > target/left.txt',
  'mkfifo out/fifo.txt',
  'ln -s /etc/shadow out/shadow.txt',
  'ln -s /etc out/etc',
  ': > out/empty.txt',
  "touch -d '2024-02-29 12:30:45' out/numbers.txt",
  // Names that would do harm on another system.
  "echo x > 'out/C:x'; echo x > 'out/..\\..\\x'; echo x > out/NUL",
].join('; ');
const numbers = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join('');
const artifacts = ['out/**'];

describe('artifacts of jobs, on real parts', () => {
  let dir: string;
  let bench: Bench;
  let cluster: Cluster;
  let env: Record<string, string>;
  let reader: string;
  let viewer: string;

  beforeAll(async () => {
    dir = await makeTempDir('kept');
    bench = await startBench({ controlPlane: true });
    const ca = await makeAuthority(dir);
    const serving = await issueCertificate(ca, { dir, name: 'logs', user: 'logs', addresses: ['127.0.0.1'] });
    const port = await freePort();
    env = { CIJOB_LOG_SERVER: `https://127.0.0.1:${port}`, CIJOB_LOG_CA: ca.certificate };
    cluster = await Cluster.start(bench, {
      flags: [
        ...['--log-dir', join(dir, 'logs'), '--log-address', `127.0.0.1:${port}`],
        ...['--tls-cert', serving.certificate, '--tls-key', serving.key],
      ],
    });
    reader = await account('reader', 'cijobs.ci.pikaci.dev,cijobs.ci.pikaci.dev/artifacts');
    viewer = await account('viewer', 'cijobs.ci.pikaci.dev,cijobs.ci.pikaci.dev/log');
  });
  afterAll(async () => {
    await cluster.stop();
    await bench.stop();
    await clearAway(dir);
  });

  async function account(name: string, resources: string): Promise<string> {
    await cluster.kubectl('create', 'serviceaccount', name);
    await cluster.kubectl('create', 'role', name, '--verb=get,list,watch', `--resource=${resources}`);
    await cluster.kubectl('create', 'rolebinding', name, `--role=${name}`, `--serviceaccount=ci:${name}`);
    return bench.controlPlane.serviceAccountKubeconfig('ci', name);
  }

  /** `cijob artifacts …` as somebody. */
  function save(kubeconfig: string, ...args: string[]): Promise<CommandResult> {
    const all = [main, 'artifacts', ...args, '--kubeconfig', kubeconfig, '-n', 'ci'];
    return run(process.execPath, all, { env });
  }

  it('are the matching files byte for byte, and neither a FIFO nor what a link leads to', async () => {
    await cluster.applyAll({
      passed: { command, artifacts },
      failed: { command: `${command}; exit 3`, artifacts },
      late: { command: `${command}; sleep 60`, artifacts, timeoutSeconds: 3 },
    });
    for (const name of ['passed', 'failed', 'late']) {
      const job = await cluster.finished(name);
      const file = join(dir, `${name}.tar.gz`);
      expect(await save(reader, name, '-o', file)).toMatchObject({ code: 0, stdout: '' });
      const archive = await readFile(file);
      const files = await filesIn(archive);
      expect(files.map((one) => one.name)).toEqual(['out/deep/binary.bin', 'out/numbers.txt']);
      expect(files[0]?.content).toEqual(Buffer.from('a\0b'));
      expect(files[1]?.content.toString()).toBe(numbers);
      expect(files[1]?.header.mtime).toEqual(new Date('2024-02-29T12:30:45Z'));
      expect(job.status?.artifacts).toEqual({
        ...{ files: 2, bytes: archive.length },
        ...{ skipped: 7, truncated: false },
        notes: [
          { reason: 'NameRefused', message: expect.stringMatching(/: .*C:x, out\/NUL$/) as string },
          { reason: 'NotRegular', message: expect.stringMatching(/^left out 4: .* and 1 more$/) as string },
        ],
      });
      const events = () =>
        cluster.kubectl('get', 'events', '-o', 'jsonpath={range .items[*]}{.reason} {.note}{end}');
      await expect.poll(events, { timeout: 10_000 }).toContain('ArtifactsIncomplete');
      // It is what tar reads.
      const listed = await run('tar', ['-tzf', file]);
      expect(listed.stdout).toBe('out/deep/binary.bin\nout/numbers.txt\n');
    }
  });

  it('overwrite no file unasked, and are given only to whom RBAC lets get cijobs/artifacts', async () => {
    await cluster.apply('guarded', { command: 'echo secret > /artifacts/a', artifacts: ['a'] });
    await cluster.finished('guarded');
    const file = join(dir, 'guarded.tar.gz');
    const refused = await save(viewer, 'guarded', '-o', file);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('cannot get resource "cijobs/artifacts"');
    expect((await save(reader, 'guarded', '-o', file)).code).toBe(0);
    expect(await save(reader, 'guarded', '-o', file)).toMatchObject({ code: 64 });
    expect((await save(reader, 'guarded', '-o', file, '--force')).code).toBe(0);
    expect((await filesIn(await readFile(file))).map(({ content }) => content.toString())).toEqual([
      'secret\n',
    ]);
  });

  it('arrive whole over a connection that is cut, which is gone on with from where it was', async () => {
    // Nothing of it can be compressed.
    await cluster.apply('large', {
      command: 'head -c 3000000 /dev/urandom >/artifacts/large',
      artifacts: ['large'],
    });
    const { status } = await cluster.finished('large');
    const proxy = await FaultProxy.start({ port: Number(new URL(env['CIJOB_LOG_SERVER'] ?? '').port) });
    proxy.faults.bytesPerSecond = 1_000_000;
    const file = join(dir, 'large.tar.gz');
    const saving = save(reader, 'large', '-o', file, '--server', `https://127.0.0.1:${proxy.port}`);
    const written = async () => {
      const draft = (await readdir(dir)).find((name) => name.startsWith('large.tar.gz.'));
      return draft === undefined ? 0 : (await stat(join(dir, draft)).catch(() => ({ size: 0 }))).size;
    };
    await expect.poll(written, { timeout: 60_000, interval: 20 }).toBeGreaterThan(500_000);
    proxy.reset();
    proxy.faults.bytesPerSecond = Infinity;
    expect(await saving).toMatchObject({ code: 0 });
    const archive = await readFile(file);
    expect(archive.length).toBe(status?.artifacts?.bytes);
    expect((await filesIn(archive)).map(({ name, content }) => [name, content.length])).toEqual([
      ['large', 3_000_000],
    ]);
    expect(proxy.accepted).toBeGreaterThan(1);
    await proxy.close();
  });
});
