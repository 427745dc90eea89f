import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run, type CommandResult } from '../support/command.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { SshSim } from '../support/ssh-sim.ts';

const program = join(import.meta.dirname, '../../controller/main.ts');
let dir: string;
let incus: IncusSim;
let machine: SshSim;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cijob-run-'));
  incus = new IncusSim();
  incus.store.addImage('pikaci/dev', 'container');
  machine = await SshSim.start(incus);
  await writeFile(join(dir, 'key'), machine.privateKey);
});
afterEach(async () => {
  await machine.close();
  incus.close();
  await rm(dir, { recursive: true });
});

function host(name: string, address: string) {
  return {
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'IncusHost',
    metadata: { name },
    spec: {
      connection: {
        ssh: {
          address,
          port: machine.port,
          user: 'cijob',
          privateKeySecretRef: { name: 'ssh', key: 'key' },
          hostKeys: [machine.hostKey],
          socketPath: machine.socketPath,
        },
      },
      capacity: { instances: 1 },
      allowedNamespaces: { all: true },
    },
  };
}

const job = {
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  metadata: { name: 'build' },
  spec: { command: 'true', instance: { type: 'Container', image: 'pikaci/dev' } },
};

async function cijobRun(hosts: object[], ...flags: string[]): Promise<CommandResult> {
  const file = join(dir, 'all.yaml');
  await writeFile(file, [job, ...hosts].map((one) => JSON.stringify(one)).join('\n---\n'));
  return run(process.execPath, [program, 'run', '-f', file, ...flags]);
}

test('connects before it tells a phase, and ends without a word about its connection', async () => {
  const { code, stderr } = await cijobRun([host('build-1', '127.0.0.1')], '-i', join(dir, 'key'));
  expect(code).toBe(0);
  expect(stderr.split('\n').map((line) => /default\/build +(\w+)/.exec(line)?.[1] ?? line)).toEqual([
    'Provisioning',
    'Running',
    'Collecting',
    'Succeeded',
    '',
  ]);
  expect(incus.names()).toEqual([]);
});

test('exits with 70 and the reason, and makes nothing, when no host can be connected', async () => {
  machine.policy.refuseKey = true;
  const { code, stderr } = await cijobRun([host('build-1', '127.0.0.1')], '-i', join(dir, 'key'));
  expect(code).toBe(70);
  expect(stderr).toMatch(/^cijob: host build-1: .* does not accept the private key[^\n]*\n$/);
  expect(incus.lives).toEqual([]);
});

test('goes on with the hosts that are connected, and says which is not', async () => {
  // Nothing of ours listens on the other loopback addresses.
  const hosts = [host('away', '127.0.0.2'), host('build-1', '127.0.0.1')];
  const { code, stderr } = await cijobRun(hosts, '-i', join(dir, 'key'));
  expect(code).toBe(0);
  expect(stderr).toMatch(/^host away: .*ECONNREFUSED/m);
  expect(stderr).toMatch(/Provisioning .* on build-1$/m);
});

test('exits with 78 at once, and says why, when no host may ever take the job', async () => {
  const elsewhere = host('build-1', '127.0.0.1');
  const closed = {
    ...elsewhere,
    spec: { ...elsewhere.spec, allowedNamespaces: { matchLabels: { team: 'a' } } },
  };
  const { code, stderr } = await cijobRun([closed], '-i', join(dir, 'key'));
  expect(code).toBe(78);
  expect(stderr).toContain("spec.allowedNamespaces of build-1 does not admit the job's namespace");
  expect(incus.lives).toEqual([]);
});

test('exits with 64 and what to give when it has no private key', async () => {
  const { code, stderr } = await cijobRun([host('build-1', '127.0.0.1')]);
  expect(code).toBe(64);
  expect(stderr).toContain('--identity FILE');
  expect(machine.accepted).toBe(0);
});

test.each(['run', 'plan'])('%s --help says that it does not talk to a cluster', async (subcommand) => {
  const { stdout } = await run(process.execPath, [program, subcommand, '--help']);
  expect(stdout).toContain('it does not talk to a cluster');
});
