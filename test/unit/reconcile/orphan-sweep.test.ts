import { beforeEach, describe, expect, it } from 'vitest';
import type { Command } from '../../../controller/incus/commands.ts';
import type { InstanceView } from '../../../controller/incus/inventory.ts';
import type { CommandOutcome } from '../../../controller/incus/outcome.ts';
import { OrphanSweep } from '../../../controller/reconcile/orphan-sweep.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { anInstance } from './fixtures.ts';

const grace = 60_000;
const interval = 15_000;

const instance = (name: string, part: Partial<InstanceView> = {}) =>
  anInstance({ name, labels: { uid: `uid of ${name}` }, ...part });

describe('the sweep for instances without a job', () => {
  let clock: ManualClock;
  let jobs: Set<string> | undefined;
  let there: { host: string; instance: InstanceView }[];
  let outcomes: CommandOutcome[];
  let sent: string[];
  let told: string[];
  let sweep: OrphanSweep;

  beforeEach(() => {
    clock = new ManualClock();
    jobs = new Set();
    there = [{ host: 'h', instance: instance('lost') }];
    outcomes = [];
    sent = [];
    told = [];
    sweep = new OrphanSweep({
      clock,
      grace,
      orphans: () => jobs && there.filter(({ instance }) => !jobs?.has(instance.labels['uid'] ?? '')),
      hosts: {
        perform: (host: string, command: Command) => {
          sent.push(`${command.verb} ${host}/${command.instance} ${'uid' in command ? command.uid : ''}`);
          return Promise.resolve(outcomes.shift() ?? { kind: 'done' });
        },
      },
      onRemoved: (host, { name }) => told.push(`removed ${host}/${name}`),
      onError: (host, { name }, message) => told.push(`${host}/${name}: ${message}`),
    });
  });
  const later = async (milliseconds: number) => {
    clock.advance(milliseconds);
    await sweep.sweep();
  };

  it('stops and deletes one that has been there for the whole grace, and tells', async () => {
    await sweep.sweep();
    await later(grace - 1);
    expect(sent).toEqual([]);
    await later(1);
    expect(sent).toEqual(['stop h/lost uid of lost', 'delete h/lost uid of lost']);
    expect(told).toEqual(['removed h/lost']);
  });

  it('only deletes one that does not run', async () => {
    there = [{ host: 'h', instance: instance('lost', { status: 'Stopped' }) }];
    await sweep.sweep();
    await later(grace);
    expect(sent).toEqual(['delete h/lost uid of lost']);
  });

  it('leaves alone those that have a job', async () => {
    jobs = new Set(['uid of kept']);
    there.push({ host: 'h', instance: instance('kept') });
    await sweep.sweep();
    await later(grace);
    expect(sent.filter((one) => one.includes('kept'))).toEqual([]);
    expect(told).toEqual(['removed h/lost']);
  });

  it('leaves everything alone while it is not known which jobs there are', async () => {
    jobs = undefined;
    await sweep.sweep();
    await later(grace);
    expect(sent).toEqual([]);
    // That time does not count: nobody knew that it was without its job.
    jobs = new Set();
    await later(0);
    await later(grace - 1);
    expect(sent).toEqual([]);
  });

  it.each([
    ['its job has come back meanwhile', () => (jobs = new Set(['uid of lost'])), () => (jobs = new Set())],
    [
      'its host was out of sight meanwhile',
      () => (there = []),
      () => (there = [{ host: 'h', instance: instance('lost') }]),
    ],
  ])('counts the grace anew when %s', async (_what, comes, goes) => {
    await sweep.sweep();
    comes();
    await later(grace);
    goes();
    await later(grace - 1);
    expect(sent).toEqual([]);
    await later(grace - 1);
    expect(sent).toEqual([]);
    await later(1);
    expect(told).toEqual(['removed h/lost']);
  });

  it('counts it for each host: a name says nothing of another one', async () => {
    await sweep.sweep();
    there = [{ host: 'other', instance: instance('lost') }];
    await later(grace);
    expect(sent).toEqual([]);
  });

  it('waits for what is being done to it', async () => {
    const operations = new Set(['o']);
    there = [{ host: 'h', instance: instance('lost', { status: 'Stopped', operations }) }];
    await sweep.sweep();
    await later(grace);
    expect(sent).toEqual([]);
    // A command that still runs in it is none of that.
    there = [{ host: 'h', instance: instance('lost', { status: 'Running', operations }) }];
    await sweep.sweep();
    expect(sent).not.toEqual([]);
  });

  it('tells why it could not, goes on with the others, and tries again the next time', async () => {
    there.push({ host: 'h', instance: instance('other') });
    outcomes = [{ kind: 'failed', message: 'busy' }];
    await sweep.sweep();
    await later(grace);
    expect(sent.filter((one) => one.includes('lost'))).toEqual(['stop h/lost uid of lost']);
    expect(told).toEqual(['h/lost: busy', 'removed h/other']);
    await later(1);
    expect(told.at(-2)).toBe('removed h/lost');
  });

  it('tells which one it is at', async () => {
    await sweep.sweep();
    expect(sweep.removing).toBeUndefined();
    clock.advance(grace);
    const swept = sweep.sweep();
    expect(sweep.removing?.instance.name).toBe('lost');
    await swept;
    expect(sweep.removing).toBeUndefined();
  });

  it('goes round by itself until it is stopped', async () => {
    const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
    sweep.start();
    for (let time = 0; time <= grace; time += interval) {
      clock.advance(interval);
      await settle();
    }
    expect(told).toEqual(['removed h/lost']);
    sweep.stop();
    clock.advance(interval);
    await settle();
    expect(told).toEqual(['removed h/lost']);
  });
});
