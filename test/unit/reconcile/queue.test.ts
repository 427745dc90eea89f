import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CiJob, type CiJobSpec } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { findCondition } from '../../../controller/api/conditions.ts';
import { defaultPatience, type Admission } from '../../../controller/reconcile/observed.ts';
import { planQueue } from '../../../controller/reconcile/queue.ts';
import { statusAfter } from '../../../controller/reconcile/status.ts';
import type { Step } from '../../../controller/reconcile/step.ts';
import { config } from '../../../controller/reconcile/verdict.ts';
import { worthWriting } from '../../../controller/reconcile/worth-writing.ts';
import { aJob, seen } from './fixtures.ts';

const created = Date.parse('2026-01-01T00:00:00Z');
const waiting = {
  kind: 'waiting',
  reason: 'NoFreeSlot',
  message: 'full',
  hosts: ['h'],
  position: 1,
  length: 1,
} as const;
const admitted = { kind: 'admitted', host: 'h' } as const;

function planned(
  spec: Partial<CiJobSpec>,
  admission: Admission | undefined,
  after: number,
  status?: CiJobStatus,
) {
  const job = CiJob.parse({
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'CiJob',
    metadata: { name: 'a', uid: 'u', creationTimestamp: new Date(created).toISOString() },
    spec: { command: 'true', instance: { image: 'image' }, ...spec },
    ...(status ? { status } : {}),
  });
  const observed = seen({ host: undefined, admission });
  const step = planQueue(job, observed, created + after, defaultPatience);
  return { ...step, wakesAfter: step.wakeAt === undefined ? undefined : step.wakeAt - created };
}
/** A job whose last attempts were lost `created`. */
const lost = (times: number): CiJobStatus => ({
  attempts: Array.from({ length: times }, (_, index) => ({
    attempt: index + 1,
    reason: 'HostLost',
    message: '',
    finishedAt: new Date(created).toISOString(),
  })),
});

/** A job that waits: each look plans, and writes what is worth it, as the reconciler does. */
class Waiting {
  readonly writes: { at: number; reason: string; message: string }[] = [];
  #now = created;
  #stored: CiJobStatus | undefined;
  #draft: CiJobStatus | undefined;

  /** @param crashes whether another controller looks, that knows only what was written. */
  look(admission: Partial<Admission & { kind: 'waiting' }>, after = 0, crashes = false): CiJobStatus {
    this.#now += after;
    if (crashes) this.#draft = this.#stored;
    const job = { ...aJob(), ...(this.#draft ? { status: this.#draft } : {}) };
    const observed = seen({ host: undefined, admission: { ...waiting, ...admission } });
    const step = planQueue(job, observed, this.#now, defaultPatience);
    this.#draft = statusAfter(job, step, observed, this.#now);
    if (worthWriting(this.#stored, this.#draft, this.#now)) {
      this.#stored = this.#draft;
      const { reason = '', message = '' } = findCondition(this.#draft.conditions, 'Admitted') ?? {};
      this.writes.push({ at: this.#now, reason, message });
    }
    return this.#draft;
  }

  /** Milliseconds between one write and the next. */
  get pauses(): number[] {
    return this.writes.slice(1).map(({ at }, index) => at - (this.writes[index]?.at ?? 0));
  }
}

describe('the place of a job that waits', () => {
  it('is written a minute after the last that was written, however often it changes and however long it waits', () => {
    const job = new Waiting();
    for (let second = 0; second <= 600; second += 1)
      job.look({ position: 1 + ((700 - second) % 90), length: 700 }, second === 0 ? 0 : 1000);
    expect(job.pauses).toEqual(Array(10).fill(60_000));
    expect(job.look({ position: 99, length: 700 })).toMatchObject({
      queue: { position: 11, length: 700, asOf: new Date(created + 600_000).toISOString() },
    });
  });

  it('is written at once when the one that is shown has stood for a minute', () => {
    const job = new Waiting();
    job.look({ position: 3 });
    job.look({ position: 3 }, 61_000);
    job.look({ position: 2 }, 500);
    expect(job.pauses).toEqual([61_500]);
  });

  it('waits for its minute also when another controller has taken over, and whatever its words say', () => {
    const job = new Waiting();
    job.look({ position: 3 });
    job.look({ position: 2 }, 30_000, true);
    job.look({ position: 2, message: 'host-b uses 1 of 2 slots' }, 29_999, true);
    expect(job.writes).toHaveLength(1);
    job.look({ position: 2 }, 1, true);
    expect(job.writes).toHaveLength(2);
  });

  it('goes with the reason, which is written at once, and again not before ten seconds when it flaps', () => {
    const job = new Waiting();
    job.look({ reason: 'NoMatchingHost', position: 3 });
    job.look({ reason: 'NoFreeSlot', position: 2 }, 20_000);
    expect(job.writes.map(({ reason, message }) => `${reason}: ${message}`)).toEqual([
      'NoMatchingHost: full; place 3 of 1 in the queue',
      'NoFreeSlot: full; place 2 of 1 in the queue',
    ]);
    for (let second = 1; second <= 60; second += 1)
      job.look({ reason: second % 2 === 0 ? 'NoFreeSlot' : 'HostUnreachable' }, 1000);
    expect(Math.min(...job.pauses)).toBeGreaterThanOrEqual(10_000);
  });

  it('is looked at again when it may be shown', () => {
    const shown = (reason: string) => new Waiting().look({ reason, position: 3 });
    expect(planned({}, waiting, 5_000, shown('NoFreeSlot')).wakesAfter).toBe(60_000);
    expect(planned({}, waiting, 5_000, shown('HostUnreachable')).wakesAfter).toBe(10_000);
  });

  it('is shown only while it waits', () => {
    const job = { ...aJob(), status: new Waiting().look({}) };
    expect(job.status.queue).toBeDefined();
    const after = (step: Step) => statusAfter(job, step, seen(), created).queue;
    const suspended = planQueue(aJob({ suspend: true }), seen({ host: undefined }), created, defaultPatience);
    expect([
      after({ phase: 'Provisioning', admittedTo: 'h' }),
      after(suspended),
      after({ verdict: config('QueueTimeout', '') }),
    ]).toEqual([undefined, undefined, undefined]);
  });

  it('never costs more than a write a minute, in whatever order looks, changes and crashes come', () => {
    const look = fc.record({
      position: fc.integer({ min: 1, max: 5 }),
      reason: fc.constantFrom('NoFreeSlot', 'HostUnreachable', 'NoMatchingHost'),
      after: fc.oneof(fc.integer({ min: 0, max: 3_000 }), fc.integer({ min: 0, max: 70_000 })),
      crashes: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(look, { maxLength: 200 }), (looks) => {
        const job = new Waiting();
        for (const { after, crashes, ...admission } of looks) job.look(admission, after, crashes);
        for (const [index, { at, reason }] of job.writes.entries()) {
          const before = job.writes[index - 1];
          if (before)
            expect(at - before.at).toBeGreaterThanOrEqual(reason === before.reason ? 60_000 : 10_000);
        }
      }),
    );
  });
});

describe('a job in the queue', () => {
  it('finds out its place each minute, and more rarely far back', () => {
    const at = (position: number) => planned({}, { ...waiting, position }, 5_000).wakesAfter;
    expect([1, 100, 200, 1_000, 3_000, 10_000].map(at)).toEqual(
      [1, 1, 2, 10, 30, 30].map((minutes) => 5_000 + minutes * 60_000),
    );
  });

  it('costs all together little more in a long queue than in a short one', () => {
    const looksAMinute = (length: number) =>
      Array.from(
        { length },
        (_, index) => planned({}, { ...waiting, position: index + 1, length }, 0).wakesAfter!,
      ).reduce((sum, interval) => sum + 60_000 / interval, 0);
    const [short, long] = [looksAMinute(1_000), looksAMinute(10_000)];
    expect(long).toBeLessThan(700);
    expect(long / short).toBeLessThan(2.2);
  });

  it('is looked at when its time there is over', () => {
    const queuedAt = new Date(created).toISOString();
    expect(planned({ queueTimeoutSeconds: 10 }, waiting, 5_000, { queuedAt }).wakesAfter).toBe(10_000);
  });

  it('takes a slot that it was given, even if its time is over by then', () => {
    expect(planned({ queueTimeoutSeconds: 10 }, admitted, 10_000)).toMatchObject({ admittedTo: 'h' });
  });

  it('has no time limit once it was admitted before: the wait is not its fault', () => {
    const again = { queueTimeoutSeconds: 10 };
    expect(planned(again, undefined, 3600_000, lost(1))).toMatchObject({ needsSlot: true });
    expect(planned(again, waiting, 3600_000, lost(1)).verdict).toBeUndefined();
  });

  it('is not given a slot while suspended, and does not fail of waiting', () => {
    const step = planned({ suspend: true, queueTimeoutSeconds: 10 }, admitted, 3600_000);
    expect([step.admittedTo, step.verdict, step.needsSlot, step.wakeAt]).toEqual(Array(4).fill(undefined));
  });

  it('waits before each new attempt, twice as long as before the last, and never longer than five minutes', () => {
    const pauses = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(
      (times) => planned({}, undefined, 0, lost(times)).wakesAfter,
    );
    expect(pauses).toEqual([5, 10, 20, 40, 80, 160, 300, 300, 300, 300].map((seconds) => seconds * 1000));
    expect(planned({}, admitted, 4_999, lost(1))).toMatchObject({ phase: 'Pending' });
    expect(planned({}, admitted, 5_000, lost(1))).toMatchObject({ admittedTo: 'h' });
  });
});
