import fc from 'fast-check';
import type { Fate } from './guest.ts';

/** What happens to a world of the model. Numbers that pick something are taken modulo what there is. */
export type Step =
  /** Things go their way for `count` turns; `seed` says whose turn it is each time. */
  | { do: 'go on'; count: number; seed: number }
  | { do: 'crash' | 'second leader' | 'cut' | 'relist' | 'lag' | 'lose an answer'; pick: number }
  | { do: 'swap events' | 'repeat an event'; pick: number }
  | { do: 'kill incusd' | 'start incusd' | 'hang monitors'; pick: number }
  | { do: 'cancel' | 'delete' | 'suspend' | 'resume'; pick: number }
  | { do: 'meddle'; what: 'stop' | 'delete' | 'restart'; pick: number }
  | { do: 'wait'; seconds: number };

/** A job, and what its command comes to in each attempt; the last fate is that of all further attempts. */
export interface JobPlan {
  fates: readonly Fate[];
  infraRetryLimit: number;
  holdOnFailureSeconds: number;
  ttlSecondsAfterFinished: number | undefined;
  priority: number;
}

export interface Scenario {
  type: 'container' | 'virtual-machine';
  /** Slots of each host. */
  hosts: readonly number[];
  jobs: readonly JobPlan[];
  steps: readonly Step[];
}

const fate: fc.Arbitrary<Fate> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('exits' as const), code: fc.constantFrom(0, 0, 1, 7) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'times out' as const,
        'never ends' as const,
        'cannot begin' as const,
        'runner vanishes' as const,
        'reboots' as const,
        'powers off' as const,
        'garbles its result' as const,
        'never boots' as const,
        'does not start' as const,
      ),
    }),
  },
);

const job: fc.Arbitrary<JobPlan> = fc.record({
  fates: fc.array(fate, { minLength: 1, maxLength: 2 }),
  infraRetryLimit: fc.nat(2),
  holdOnFailureSeconds: fc.constantFrom(0, 0, 60),
  ttlSecondsAfterFinished: fc.constantFrom(undefined, undefined, 0, 30),
  priority: fc.nat(1),
});

const pick = fc.nat(20);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      do: fc.constant('go on' as const),
      count: fc.integer({ min: 1, max: 14 }),
      seed: fc.nat(1e6),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'crash' as const,
        'second leader' as const,
        'cut' as const,
        'relist' as const,
        'lag' as const,
        'lose an answer' as const,
        'lose an answer' as const,
      ),
      pick,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom('swap events' as const, 'repeat an event' as const), pick }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('kill incusd' as const, 'start incusd' as const, 'hang monitors' as const),
      pick,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('cancel' as const, 'delete' as const, 'suspend' as const, 'resume' as const),
      pick,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('meddle' as const),
      what: fc.constantFrom('stop' as const, 'delete' as const, 'restart' as const),
      pick,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.constantFrom(1, 10, 120, 900) }),
  },
);

export const scenario: fc.Arbitrary<Scenario> = fc
  .record({
    type: fc.constantFrom('container' as const, 'container' as const, 'virtual-machine' as const),
    hosts: fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 1, maxLength: 2 }),
    jobs: fc.array(job, { minLength: 1, maxLength: 3 }),
    steps: fc.array(step, { maxLength: 40 }),
  })
  .filter(
    ({ type, jobs }) =>
      // A container has no boot that could fail; of a VM that does not start, only Incus's answer says why.
      !jobs.some(({ fates }) =>
        fates.some(({ kind }) => kind === (type === 'container' ? 'never boots' : 'does not start')),
      ),
  );
