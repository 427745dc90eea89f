import { describe, expect, it } from 'vitest';
import { CiJob, type CiJobSpec } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import type { Condition } from '../../../controller/api/conditions.ts';
import { forceCleanupAnnotation } from '../../../controller/api/meta.ts';
import { cleanUp } from '../../../controller/reconcile/clean-up.ts';
import type { Memory, Observed } from '../../../controller/reconcile/observed.ts';
import { anInstance as instance, name, now, seen, time } from './fixtures.ts';

const condition = (type: string, reason = 'Test'): Condition => ({
  type,
  status: 'True',
  reason,
  message: '',
  lastTransitionTime: time,
});
const down = { kind: 'down', since: now, reason: 'Unreachable', message: '' } as const;
const failed: CiJobStatus = {
  host: 'h',
  attempt: 1,
  completionTime: time,
  failure: { class: 'Test', reason: 'NonZeroExitCode', message: '' },
  conditions: [condition('Failed')],
};
const runs: CiJobStatus = { host: 'h', attempt: 1, conditions: [condition('Admitted')] };

interface Case {
  status?: CiJobStatus;
  spec?: Partial<CiJobSpec>;
  metadata?: Partial<CiJob['metadata']>;
  observed?: Partial<Omit<Observed, 'memory'>>;
  memory?: Partial<Memory>;
  at?: number;
}
function cleaned({ status = failed, spec = {}, metadata = {}, observed = {}, memory = {}, at = now }: Case) {
  const job = CiJob.parse({
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'CiJob',
    metadata: { name: 'a', uid: 'uid', creationTimestamp: time, ...metadata },
    spec: { command: 'false', instance: { image: 'image' }, ...spec },
    status,
  });
  const { commands, ...rest } = cleanUp(job, status, seen({ ...observed, memory }), at);
  return {
    ...rest,
    sent: commands.map(({ host, command }) => `${command.verb} ${host}/${command.instance}`),
  };
}
const there = { instance: instance() };
const both = [`stop h/${name}`, `delete h/${name}`];
const stray = { host: 'old', instance: instance({ name: 'stray' }) };

describe('cleaning up after a job', () => {
  it('takes the instance of one that is over, and never that of one that is not', () => {
    expect(cleaned({ observed: there })).toMatchObject({ sent: both, clean: false });
    expect(cleaned({ status: runs, observed: there })).toMatchObject({ sent: [], clean: false });
  });

  it('stops nothing that does not run', () => {
    const stopped = { instance: instance({ status: 'Stopped' }) };
    expect(cleaned({ observed: stopped }).sent).toEqual([`delete h/${name}`]);
    // Paused: it would go on running while it is deleted.
    expect(cleaned({ observed: { instance: instance({ status: 'Other' }) } }).sent).toEqual(both);
  });

  it('leaves an instance alone that only has its name, and is clean beside it', () => {
    const foreign = { instance: instance({ labels: { uid: 'other' } }) };
    expect(cleaned({ observed: foreign })).toMatchObject({ sent: [], clean: true });
  });

  it('takes what earlier attempts have left, wherever it is, also while the job goes on', () => {
    const sent = ['stop old/stray', 'delete old/stray'];
    expect(cleaned({ status: runs, observed: { ...there, strays: [stray] } }).sent).toEqual(sent);
    expect(cleaned({ observed: { strays: [stray] } })).toMatchObject({ sent, clean: false });
  });

  it('is done when nothing is there, nothing is under way and everything is in sight', () => {
    expect(cleaned({})).toMatchObject({ sent: [], clean: true, blockedBy: [] });
    expect(cleaned({ status: runs }).clean).toBe(false);
    expect(cleaned({ observed: { underWay: true } }).clean).toBe(false);
    expect(cleaned({ memory: { inFlight: 'delete' } }).clean).toBe(false);
    expect(cleaned({ observed: { host: down } })).toMatchObject({ clean: false, blockedBy: ['h'] });
    expect(cleaned({ observed: { unseen: ['old'] } })).toMatchObject({ clean: false, blockedBy: ['old'] });
    expect(cleaned({ observed: { host: down, unseen: ['h', 'old'] } }).blockedBy).toEqual(['h', 'old']);
  });

  it('is not undone by a host that goes out of sight after the instance was seen gone', () => {
    const gone = { ...failed, conditions: [condition('Failed'), condition('InstanceDeleted')] };
    expect(cleaned({ status: gone, observed: { host: down } })).toMatchObject({ clean: true, blockedBy: [] });
  });

  it('waits a little after a failure before it tries again', () => {
    const problem = { outcome: { kind: 'failed', message: 'busy' }, count: 1, since: now, at: now } as const;
    for (const verb of ['stop', 'delete'] as const) {
      const tried = { observed: there, memory: { problem: { ...problem, verb } } };
      expect(cleaned({ ...tried, at: now + 4_999 })).toMatchObject({ sent: [], wakeAt: now + 5_000 });
      expect(cleaned({ ...tried, at: now + 5_000 })).toMatchObject({ sent: both });
      expect(cleaned({ ...tried, at: now + 5_000 }).wakeAt).toBeUndefined();
    }
    expect(cleaned({ observed: there, memory: { problem: { ...problem, verb: 'collect' } } }).sent).toEqual(
      both,
    );
    expect(cleaned({ memory: { problem: { ...problem, verb: 'delete' } } }).wakeAt).toBeUndefined();
    expect(cleaned({ observed: there }).wakeAt).toBeUndefined();
  });

  it('waits for the end of a hold, but not when the job is deleted', () => {
    const held: Case = { spec: { holdOnFailureSeconds: 60 }, observed: there };
    expect(cleaned({ ...held, at: now + 59_999 })).toMatchObject({
      sent: [],
      clean: false,
      wakeAt: now + 60_000,
    });
    expect(cleaned({ ...held, at: now + 60_000 }).sent).toEqual(both);
    expect(cleaned({ ...held, metadata: { deletionTimestamp: time } }).sent).toEqual(both);
    // A hold is for the instance that failed, not for what was left before it.
    expect(cleaned({ ...held, observed: { ...there, strays: [stray] } }).sent).toEqual([
      'stop old/stray',
      'delete old/stray',
    ]);
  });

  it('lets go by force only of a job that is deleted and over, and of what cannot be seen', () => {
    const annotations = { [forceCleanupAnnotation]: '' };
    const deleted = { annotations, deletionTimestamp: time };
    const dark = { host: down };
    expect(cleaned({ metadata: deleted, observed: dark })).toMatchObject({ clean: true, blockedBy: ['h'] });
    expect(cleaned({ metadata: deleted, observed: { unseen: ['old'] } }).clean).toBe(true);
    expect(cleaned({ metadata: { annotations }, observed: dark }).clean).toBe(false);
    expect(cleaned({ metadata: { deletionTimestamp: time }, observed: dark }).clean).toBe(false);
    expect(cleaned({ status: runs, metadata: deleted, observed: dark })).toMatchObject({
      clean: false,
      blockedBy: [],
    });
    expect(cleaned({ metadata: deleted, observed: there })).toMatchObject({ clean: false, sent: both });
  });
});
