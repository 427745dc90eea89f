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
  dir = await mkdtemp(join(tmpdir(), 'cijob-plan-'));
  incus = new IncusSim();
  machine = await SshSim.start(incus);
  await writeFile(join(dir, 'key'), machine.privateKey);
});
afterEach(async () => {
  await machine.close();
  incus.close();
  await rm(dir, { recursive: true });
});

const job = {
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  metadata: { name: 'build', namespace: 'ci' },
  spec: {
    command: "make 'all' it",
    env: [
      { name: 'PLAIN', value: 'this-is-nobodys-business' },
      { name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'registry', key: 'token' } } },
    ],
    instance: { image: 'pikaci/dev', cpu: 2, memory: '4GiB' },
    mounts: [{ name: 'workspace-build', source: '/staged/build' }],
  },
};

function host() {
  return {
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'IncusHost',
    metadata: { name: 'build-1' },
    spec: {
      connection: {
        ssh: {
          address: '127.0.0.1',
          port: machine.port,
          user: 'cijob',
          privateKeySecretRef: { name: 'build-1-ssh', key: 'key' },
          hostKeys: [machine.hostKey],
          socketPath: machine.socketPath,
        },
      },
      capacity: { instances: 1, cpu: 4 },
      allowedSources: ['/nix/store', '/staged'],
      allowedImages: ['pikaci/*', 'other'],
      allowedProfiles: ['default', 'none'],
      allowedNamespaces: { all: true },
    },
  };
}

function plan(spec: object, ...flags: string[]): Promise<CommandResult> {
  return planOf([{ ...job, spec }], ...flags);
}

/** Runs `cijob plan` on jobs and the IncusHost. */
async function planOf(jobs: object[], ...flags: string[]): Promise<CommandResult> {
  await writeFile(join(dir, 'job.yaml'), jobs.map((one) => JSON.stringify(one)).join('\n---\n'));
  await writeFile(join(dir, 'host.yaml'), JSON.stringify(host()));
  const files = ['-f', join(dir, 'job.yaml'), '--host', join(dir, 'host.yaml'), '-i', join(dir, 'key')];
  return run(process.execPath, [program, 'plan', ...files, ...flags]);
}

interface PlannedJob {
  job: string;
  host?: string;
  refused?: { reason: string; message: string };
  commands: { verb: string; lines: string[] }[];
}

test('prints the commands of a job in order, with what the host answered, and changes nothing', async () => {
  const fingerprint = incus.store.addImage('pikaci/dev', 'virtual-machine');
  incus.host.directory('/nix/store/abc-build');
  incus.host.symlink('/staged/build', '/nix/store/abc-build');

  const { code, stdout, stderr } = await plan(job.spec, '-o', 'json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const [planned] = JSON.parse(stdout) as PlannedJob[];
  expect(planned).toMatchObject({ job: 'ci/build', host: 'build-1' });
  expect(planned?.commands.map(({ verb }) => verb)).toEqual([
    'resolve',
    'create',
    'probe',
    'launch',
    'collect',
    'stop',
    'delete',
  ]);
  const lines = planned?.commands.flatMap((command) => command.lines).join('\n') ?? '';
  expect(lines).toContain(`incus create ${fingerprint} `);
  expect(lines).toContain(
    'source=/nix/store/abc-build path=/staged/linux-rust/workspace-build readonly=true',
  );
  expect(lines).toContain(`'PIKACI_INCUS_GUEST_COMMAND=make '\\''all'\\'' it'`);

  expect(incus.requests.of({}).filter(({ method }) => method !== 'GET')).toEqual([]);
  expect(incus.lives).toEqual([]);
});

test('names the variables of a job and never prints their values', async () => {
  const { stdout } = await plan(job.spec, '--offline');
  expect(stdout).toContain("printf '%s\\0' PLAIN=… TOKEN=… '' | incus file push - ");
  expect(stdout).not.toContain('nobodys-business');
});

test('asks no host anything offline, and leaves open what only a host knows', async () => {
  const { code, stdout } = await plan(job.spec, '--offline');
  expect(code).toBe(0);
  expect(stdout).toContain("incus create '<fingerprint of pikaci/dev>'");
  expect(stdout).toContain('source=/staged/build ');
  expect(machine.accepted).toBe(0);
});

test('prints the same for the same manifest', async () => {
  const [first, second] = [await plan(job.spec, '--offline'), await plan(job.spec, '--offline')];
  expect(second.stdout).toBe(first.stdout);
});

test('exits with 78 when a host refuses a job, and gives the reason of each', async () => {
  incus.store.addImage('pikaci/dev', 'virtual-machine');
  incus.host.directory('/etc');
  const plain = { ...job.spec, mounts: [] };
  const refused: Record<string, object> = {
    ImageNotFound: { ...plain, instance: { image: 'pikaci/none', type: 'Container' } },
    ImageTypeMismatch: { ...plain, instance: { image: 'pikaci/dev', type: 'Container' } },
    ImageNotAllowed: { ...plain, instance: { image: 'pikaci' } },
    SourceNotAllowed: { ...plain, mounts: [{ name: 'snapshot', source: '/etc' }] },
    SourceNotFound: { ...plain, mounts: [{ name: 'snapshot', source: '/nix/store/none' }] },
    ProfileNotFound: { ...plain, instance: { image: 'pikaci/dev', profiles: ['none'] } },
    ProfileNotAllowed: { ...plain, instance: { image: 'pikaci/dev', profiles: ['default', 'wide'] } },
    MountPathNotAllowed: {
      ...plain,
      mounts: [{ name: 'tools', source: '/nix/store/abc-build', path: '/nix/store' }],
    },
    ExceedsCapacity: { ...plain, instance: { image: 'pikaci/dev', cpu: 8 } },
    NoMatchingHost: { ...plain, hostSelector: { matchLabels: { arch: 'none' } } },
  };
  const jobs = Object.values({ none: plain, ...refused }).map((spec, index) => ({
    ...job,
    metadata: { name: `job-${index}` },
    spec,
  }));
  const { code, stdout } = await planOf(jobs, '-o', 'json');
  expect(code).toBe(78);
  const planned = JSON.parse(stdout) as PlannedJob[];
  expect(planned.map((one) => one.refused?.reason)).toEqual([undefined, ...Object.keys(refused)]);
  for (const one of planned.slice(1)) expect(one.commands.map(({ verb }) => verb)).not.toContain('create');
});

test('refuses offline too what the IncusHost does not grant', async () => {
  const spec = { ...job.spec, instance: { image: 'private/image' } };
  const { code, stdout } = await plan(spec, '--offline');
  expect(code).toBe(78);
  expect(stdout).toContain(
    'ImageNotAllowed: image private/image is not among what host build-1 allows (allowedImages): pikaci/*, other',
  );
  expect(machine.accepted).toBe(0);
});

test('exits with 70 and a way out when no host can be asked', async () => {
  machine.policy.refuseKey = true;
  const { code, stdout, stderr } = await plan(job.spec);
  expect({ code, stdout }).toEqual({ code: 70, stdout: '' });
  expect(stderr).toMatch(/^cijob: host build-1: .* does not accept the private key/);
  expect(stderr).toContain('--offline');
});

test('exits with 64 and the field when the manifest is invalid', async () => {
  const { code, stderr } = await plan({ ...job.spec, command: '' });
  expect(code).toBe(64);
  expect(stderr).toContain('spec.command');
  expect(stderr).not.toMatch(/^ {4}at /m);
});
