import { describe, expect, test } from 'vitest';
import type { CiJobStatus, Phase } from '../../../controller/api/cijob-status.ts';
import { Overhead, uncovered } from '../../../controller/cli/overhead.ts';
import type { Command } from '../../../controller/incus/commands.ts';

const start = Date.parse('2026-01-01T12:00:00Z');
const at = (milliseconds: number) => new Date(start + milliseconds).toISOString();
const instance = { name: 'cijob-0123456789ab' };
const command = (verb: string) => ({ verb, instance: instance.name }) as Command;

/** Phases of an attempt, each with the milliseconds after the start at which it began, up to the end of the last. */
function timings(end: number, ...phases: [Phase, number][]): CiJobStatus['timings'] {
  return phases.map(([phase, began], index) => ({
    phase,
    startedAt: at(began),
    finishedAt: at(phases[index + 1]?.[1] ?? end),
  }));
}

describe('the time that no span covers', () => {
  test('is all of it, less what they cover between them', () => {
    const whole = { from: 10, to: 100 };
    expect(uncovered(whole, [])).toBe(90);
    expect(uncovered(whole, [{ from: 0, to: 200 }])).toBe(0);
    expect(
      uncovered(whole, [
        { from: 40, to: 60 },
        { from: 0, to: 20 },
        { from: 50, to: 70 },
        { from: 45, to: 46 },
      ]),
    ).toBe(50);
    expect(uncovered(whole, [{ from: 100, to: 300 }])).toBe(90);
  });
});

describe('the overhead of an attempt', () => {
  const admitted: CiJobStatus = { instance, phase: 'Provisioning' };

  test('leaves out commands, the boot and the run, and nothing else', () => {
    const overhead = new Overhead();
    expect(overhead.status(undefined, admitted)).toBeUndefined();
    overhead.command(command('resolve'), start + 110, 100);
    overhead.command(command('create'), start + 1150, 1000);
    overhead.command(command('probe'), start + 3000, 500);
    // Between the phase's begin and the launch lies the write of the status.
    overhead.command(command('launch'), start + 5100, 60);
    overhead.command(command('collect'), start + 9030, 20);
    const after: CiJobStatus = {
      instance,
      phase: 'Succeeded',
      completionTime: at(9035),
      timings: timings(
        9035,
        ['Pending', -5000],
        ['Provisioning', 0],
        ['Booting', 1160],
        ['Running', 5000],
        ['Collecting', 9000],
      ),
    };
    // 10 before resolve, 40 to create, 10 to the boot, 40 to the launch, 10 to collect, 5 to the outcome.
    expect(overhead.status(admitted, after)).toBeCloseTo(0.115);
    expect(overhead.status(after, after)).toBeUndefined();
  });

  test('leaves out a host that is out of reach', () => {
    const overhead = new Overhead();
    const ready = (status: 'Unknown' | 'False', since: number): CiJobStatus => ({
      ...admitted,
      conditions: [{ type: 'Ready', status, reason: 'R', message: '', lastTransitionTime: at(since) }],
    });
    overhead.status(undefined, ready('False', 0));
    overhead.status(ready('False', 0), ready('Unknown', 1000));
    overhead.status(ready('Unknown', 1000), ready('False', 61_000));
    const after = { ...ready('False', 61_000), completionTime: at(62_000) };
    const over = { ...after, timings: timings(62_000, ['Provisioning', 0]) };
    expect(overhead.status(ready('False', 61_000), over)).toBe(2);
  });

  test('is that of the last attempt, whose commands alone count', () => {
    const overhead = new Overhead();
    overhead.status(undefined, admitted);
    overhead.status(admitted, { phase: 'Pending' });
    const second = { name: 'cijob-ba9876543210' };
    overhead.status({ phase: 'Pending' }, { instance: second });
    overhead.command(command('create'), start + 3000, 3000);
    const after = {
      instance: second,
      completionTime: at(3000),
      timings: timings(3000, ['Provisioning', 1000]),
    };
    expect(overhead.status({ instance: second }, after)).toBe(2);
  });

  test('is not known of an attempt that another process admitted, nor of a job that never was', () => {
    const overhead = new Overhead();
    const after = { ...admitted, completionTime: at(9), timings: timings(9, ['Provisioning', 0]) };
    expect(overhead.status(admitted, after)).toBeUndefined();
    expect(overhead.status({}, { completionTime: at(9) })).toBeUndefined();
  });
});
