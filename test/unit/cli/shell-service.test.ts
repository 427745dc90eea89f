import { beforeEach, describe, expect, it } from 'vitest';
import { CiJob } from '../../../controller/api/cijob.ts';
import { IncusHost } from '../../../controller/api/incushost.ts';
import { servedShells, type ShellHost } from '../../../controller/cli/shell-service.ts';
import { IncusError } from '../../../controller/incus/errors.ts';
import type { InstanceView } from '../../../controller/incus/inventory.ts';
import type { Happening } from '../../../controller/kube/event-recorder.ts';
import type { Refusal } from '../../../controller/kube/refusal.ts';
import type { ServedShells } from '../../../controller/kube/shell-server.ts';

const at = '2026-01-01T00:00:00Z';

describe('the guest that a shell is for', () => {
  let job: CiJob | undefined;
  let host: ShellHost | undefined;
  let instance: InstanceView | undefined;
  let changing: boolean;
  let happened: Happening[];
  let shells: ServedShells;

  beforeEach(() => {
    job = jobWith({ phase: 'Running' });
    instance = running();
    changing = false;
    happened = [];
    host = hostVia('Socket');
    shells = servedShells({
      job: (key) => (key === 'ci/job' ? job : undefined),
      host: () => host,
      controllerId: 'ours',
      onOpened: (_job, happening) => happened.push(happening),
    });
  });

  function jobWith(status: object, started = true): CiJob {
    const condition = {
      type: 'RunnerStarted',
      status: started ? 'True' : 'False',
      reason: 'Launched',
      message: '',
      lastTransitionTime: at,
    };
    return CiJob.parse({
      apiVersion: 'ci.pikaci.dev/v1alpha1',
      kind: 'CiJob',
      metadata: { name: 'job', namespace: 'ci', uid: 'uid-1', creationTimestamp: at },
      spec: { command: 'true', instance: { image: 'image' } },
      status: { host: 'build-1', instance: { name: 'guest' }, conditions: [condition], ...status },
    });
  }

  function running(labels: Record<string, string> = {}): InstanceView {
    return {
      ...{ name: 'guest', type: 'container', status: 'Running', everStarted: true, startedAt: 1 },
      ...{ announcedReady: false, devices: {}, settings: {}, operations: new Set() },
      labels: { uid: 'uid-1', controller: 'ours', ...labels },
    };
  }

  function hostVia(via: 'Socket' | 'Sudo'): ShellHost {
    const ssh = { address: 'build-1', user: 'cijob', via, hostKeys: ['ssh-ed25519 AAAA'] };
    const { spec } = IncusHost.parse({
      apiVersion: 'ci.pikaci.dev/v1alpha1',
      kind: 'IncusHost',
      metadata: { name: 'build-1', uid: 'uid-h', creationTimestamp: at },
      spec: {
        connection: { ssh: { ...ssh, privateKeySecretRef: { name: 'build-1-ssh', key: 'key' } } },
        capacity: { instances: 1 },
        allowedNamespaces: { all: true },
      },
    });
    return {
      name: 'build-1',
      spec,
      state: { kind: 'up', since: 0, version: '6.0', instanceTypes: ['Container'], project: {} },
      inventory: { get: (name) => (name === 'guest' ? instance : undefined) },
      isChanging: () => changing,
      openShell: () => Promise.reject(new IncusError('Refused', 'the guest has no agent')),
    };
  }

  const refusal = (): Refusal | undefined => {
    try {
      shells.find({ namespace: 'ci', name: 'job' });
      return undefined;
    } catch (error) {
      return error as Refusal;
    }
  };
  const target = { namespace: 'ci', name: 'job', uid: 'uid-1', host: 'build-1', instance: 'guest' };

  it('is the instance of a job that runs, or is over and held', () => {
    expect(shells.find({ namespace: 'ci', name: 'job' })).toEqual(target);
    job = jobWith({ phase: 'Failed', completionTime: at });
    expect(shells.find({ namespace: 'ci', name: 'job' })).toEqual(target);
    expect(shells.gone(target)).toBeUndefined();
  });

  it('is none before the command has been started', () => {
    job = jobWith({ phase: 'Booting' }, false);
    expect(refusal()).toMatchObject({ code: 409, message: expect.stringContaining('Booting') as string });
    job = undefined;
    expect(refusal()).toMatchObject({ code: 404 });
  });

  it('is none that stops, is gone, or belongs to something else', () => {
    changing = true;
    expect(refusal()).toMatchObject({ code: 409, message: expect.stringContaining('cijob hold') as string });
    changing = false;
    const others = [undefined, running({ uid: 'uid-2' }), running({ controller: 'theirs' })];
    for (const other of [...others, { ...running(), status: 'Stopped' as const }]) {
      instance = other;
      expect(refusal()).toMatchObject({ code: 409 });
    }
  });

  it('is none while its host is out of reach, or where the way to it carries none', () => {
    host = { ...hostVia('Socket'), state: { kind: 'down', since: 0, reason: 'Unreachable', message: '' } };
    expect(refusal()).toMatchObject({ code: 503 });
    host = undefined;
    expect(refusal()).toMatchObject({ code: 503 });
    host = hostVia('Sudo');
    expect(refusal()).toMatchObject({ code: 409, message: expect.stringContaining('Sudo') as string });
  });

  it('is told apart from one that went with its job', () => {
    job = jobWith({ phase: 'Succeeded', conditions: [{ ...jobCondition('Complete') }] });
    instance = undefined;
    expect(shells.gone(target)).toBe('the job is over (Succeeded), and its instance gone');
    job = undefined;
    expect(shells.gone(target)).toBe('the CiJob was deleted, and its instance with it');
  });

  const jobCondition = (type: string) => ({
    ...{ type, status: 'True', reason: type, message: '', lastTransitionTime: at },
  });

  it('says what the host said when it does not open', async () => {
    const request = { namespace: 'ci', name: 'job', command: undefined, root: false, terminal: undefined };
    await expect(shells.open(target, request, () => Promise.resolve())).rejects.toMatchObject({
      code: 503,
      message: expect.stringContaining('the guest has no agent') as string,
    });
  });

  it('has an Event for each shell, with who opened it and as whom', () => {
    shells.opened(target, 'ann', true);
    shells.opened(target, 'bob', false);
    expect(happened.map(({ reason, note }) => [reason, note])).toEqual([
      ['ShellOpened', 'ann opened a shell in instance guest as root'],
      ['ShellOpened', "bob opened a shell in instance guest as the job's user"],
    ]);
  });
});
