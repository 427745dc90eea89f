import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import { type CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { statusAfter } from '../../../controller/reconcile/status.ts';
import { no, yes, type Step } from '../../../controller/reconcile/step.ts';
import { infrastructure, type Verdict } from '../../../controller/reconcile/verdict.ts';
import { worthWriting } from '../../../controller/reconcile/worth-writing.ts';
import { aJob, anInstance, now, seen } from './fixtures.ts';

const bare = aJob();
const there = seen({ instance: anInstance() });

/** A job of which each look computes a status, and writes it if it is worth it. */
class Life {
  readonly writes: string[] = [];
  #now = now;
  #draft: CiJobStatus | undefined;
  #stored: CiJobStatus | undefined;
  #generation = 1;

  look(step: Step, milliseconds = 0): boolean {
    this.#now += milliseconds;
    const planned = statusAfter(this.#job(), step, there, this.#now);
    this.#draft = planned;
    if (!worthWriting(this.#stored, planned, this.#now)) return false;
    this.#stored = planned;
    this.writes.push(planned.phase ?? '');
    return true;
  }

  /** Somebody changes the spec. */
  edit(): void {
    this.#generation += 1;
  }

  /** Another controller takes over: what was not written is forgotten. */
  crash(): void {
    this.#draft = this.#stored;
  }

  get draft(): CiJobStatus | undefined {
    return this.#draft;
  }

  get stored(): CiJobStatus | undefined {
    return this.#stored;
  }

  #job(): CiJob {
    return {
      ...bare,
      metadata: { ...bare.metadata, generation: this.#generation },
      ...(this.#draft ? { status: this.#draft } : {}),
    };
  }
}

const admitted: Step = { phase: 'Provisioning', admittedTo: 'h' };
const provisioning: Step = { phase: 'Provisioning' };
const booting: Step = { phase: 'Booting', conditions: { Started: yes('InstanceRunning', '') } };
const running: Step = { phase: 'Running', conditions: { RunnerStarted: yes('RunnerLaunched', '') } };
const collecting: Step = { phase: 'Collecting' };
const passed: Step = { verdict: { passed: true, exitCode: 0, log: undefined } };
const queued = (position: number): Step => ({
  phase: 'Pending',
  queue: { position, length: 9, asOf: now - position },
  conditions: { Admitted: no('NoFreeSlot', `full; place ${position}`) },
});
const blocked: Step = { blocked: { reason: 'HostUnreachable', message: 'no route' } };

describe('the writes of a status', () => {
  it('are three in a life without a wait, however often it is looked at: admitted, running, finished', () => {
    const looks = (step: Step, most = 4) =>
      fc
        .array(fc.integer({ min: 0, max: 3_000 }), { minLength: 1, maxLength: most })
        .map((times) => times.map((time) => [step, time] as const));
    const verdict = fc.constantFrom<Verdict>(
      { passed: true, exitCode: 0, log: undefined },
      { passed: false, class: 'Test', reason: 'NonZeroExitCode', message: '', exitCode: 1 },
      { passed: false, class: 'Cancelled', reason: 'Cancelled', message: '' },
    );
    const life = fc
      .tuple(
        looks(admitted, 1),
        looks(provisioning),
        looks(booting),
        looks(running),
        looks(collecting),
        verdict,
      )
      .map(
        ([...parts]) => [...parts.slice(0, -1).flat(), [{ verdict: parts.at(-1) }, 5], [{}, 9e9]] as const,
      );
    fc.assert(
      fc.property(life, (steps) => {
        const one = new Life();
        for (const [step, time] of steps as readonly (readonly [Step, number])[]) one.look(step, time);
        expect(one.writes).toHaveLength(3);
        expect(one.writes.slice(0, 2)).toEqual(['Provisioning', 'Running']);
        // Steps that were not worth a write of their own are all in the last one.
        expect(one.stored).toEqual(one.draft);
        expect(one.stored?.timings?.map(({ phase }) => phase)).toEqual([
          'Provisioning',
          'Booting',
          'Running',
          'Collecting',
        ]);
      }),
    );
  }, 60_000);

  it('tell of a boot that takes long, once', () => {
    const life = new Life();
    life.look(admitted);
    expect(life.look(booting, 1_000)).toBe(false);
    expect(life.look(booting, 14_999)).toBe(false);
    expect(life.look(booting, 1)).toBe(true);
    expect(life.look(booting, 60_000)).toBe(false);
  });

  it('tell each place in the queue that the plan wants shown, once', () => {
    const life = new Life();
    expect(life.look(queued(3))).toBe(true);
    expect(life.look(queued(2), 60_000)).toBe(true);
    expect(life.look({ phase: 'Pending' }, 3600_000)).toBe(false);
  });

  it('tell at once why it waits, when that is another reason', () => {
    const life = new Life();
    life.look(queued(1));
    expect(life.look({ phase: 'Pending', conditions: { Admitted: no('HostUnschedulable', '') } })).toBe(true);
  });

  it('tell that the host is out of sight, and that it is back', () => {
    const life = new Life();
    life.look(admitted);
    life.look(running);
    expect([life.look(blocked), life.look(blocked), life.look(running), life.look(running)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
  });

  it('tell of each attempt that was lost', () => {
    const life = new Life();
    life.look(admitted);
    life.look({ verdict: infrastructure('HostLost', '') });
    life.look(admitted);
    expect(life.look({ verdict: infrastructure('HostLost', '') })).toBe(true);
    expect(life.stored?.attempts).toHaveLength(2);
  });

  it('tell that an instance may be left behind, once', () => {
    const life = new Life();
    life.look(admitted);
    const left = { status: 'Unknown', reason: 'HostUnreachable', message: '' } as const;
    expect([1, 2].map(() => life.look({ conditions: { InstanceDeleted: left } }))).toEqual([true, false]);
  });

  it('tell which generation of the spec they are about', () => {
    const life = new Life();
    life.look(admitted);
    life.edit();
    expect(life.look(provisioning)).toBe(true);
    expect(life.stored?.observedGeneration).toBe(2);
  });

  it('come to the same end when the controller dies between any two', () => {
    const steps = [admitted, provisioning, booting, running, collecting, passed];
    for (const dies of steps.keys()) {
      const life = new Life();
      for (const [index, step] of steps.entries()) {
        if (index === dies) life.crash();
        life.look(step, 10);
      }
      expect(life.stored?.phase, `dies before step ${dies}`).toBe('Succeeded');
    }
  });
});
