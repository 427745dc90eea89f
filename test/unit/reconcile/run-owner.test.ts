import { describe, expect, test } from 'vitest';
import { holdUntilAnnotation } from '../../../controller/api/meta.ts';
import { defaultPatience } from '../../../controller/reconcile/observed.ts';
import {
  isAbandoned,
  leaseEnd,
  parseRunOwner,
  runOwnerId,
  type RunOwner,
} from '../../../controller/reconcile/run-owner.ts';
import { aJob, anInstance } from './fixtures.ts';

const here = '0123456789abcdef0123456789abcdef';
const elsewhere = 'f'.repeat(32);
const owner: RunOwner = { place: here, pid: 42, start: '1234567' };
const now = Date.parse('2026-01-01T12:00:00Z');
const before = '2026-01-01T11:59:59Z';
const after = '2026-01-01T12:00:01Z';

test('an owner is read as it was written', () => {
  expect(parseRunOwner(runOwnerId(owner))).toEqual(owner);
});

test.each([
  'cijob-system-0a1b2c3d',
  'run-1234-abcd',
  `run:${here}:0:1`,
  `run:${here}:42`,
  `run:${here}:42:1:2`,
  `run:${here.toUpperCase()}:42:1`,
  `xrun:${here}:42:1`,
  '',
  undefined,
])('what is not the identity of a run is none: %s', (id) => {
  expect(parseRunOwner(id)).toBeUndefined();
});

describe('an instance', () => {
  const abandoned = (controller: string | undefined, expires: string | undefined, lives: boolean) => {
    const labels = { ...(controller && { controller }), ...(expires && { expires }) };
    return isAbandoned(anInstance({ labels }), now, { place: here, lives: () => lives });
  };
  const ours = runOwnerId(owner);
  const theirs = runOwnerId({ ...owner, place: elsewhere });

  test.each([
    ['a run here that is dead, whatever its lease', ours, after, false, true],
    ['a run here that lives, whatever its lease', ours, before, true, false],
    ['a run elsewhere whose lease is over', theirs, before, false, true],
    ['a run elsewhere whose lease is not over', theirs, after, false, false],
    ['a run elsewhere without a lease', theirs, undefined, false, false],
    ['a run elsewhere with a lease that cannot be read', theirs, 'soon', false, false],
    ["a cluster's controller", 'cijob-system-0a1b2c3d', before, false, false],
    ['nobody we know', undefined, before, false, false],
  ])('of %s', (_whose, controller, expires, lives, expected) => {
    expect(abandoned(controller, expires, lives)).toBe(expected);
  });
});

describe('a lease', () => {
  const seconds = (spec: Parameters<typeof aJob>[0], annotations: Record<string, string> = {}) => {
    const job = aJob(spec);
    const held = { ...job, metadata: { ...job.metadata, annotations } };
    return (leaseEnd(held, now, defaultPatience) - now) / 1000;
  };
  const spec = { timeoutSeconds: 600, bootTimeoutSeconds: 60 };

  test('outlasts all that may happen to a job that is alive', () => {
    // Its boot, two launches with their slack, two absences of the host; and an hour for clocks that differ.
    expect(seconds(spec)).toBe(60 + 2 * (600 + 30) + 2 * 600 + 3600);
  });

  test('outlasts the time for which a failed job is held', () => {
    expect(seconds({ ...spec, holdOnFailureSeconds: 900 }) - seconds(spec)).toBe(900);
    const until = new Date(now + 1800_000).toISOString();
    expect(seconds(spec, { [holdUntilAnnotation]: until }) - seconds(spec)).toBe(1800);
    const never = '2099-01-01T00:00:00Z';
    expect(seconds(spec, { [holdUntilAnnotation]: never }) - seconds(spec)).toBe(7 * 24 * 3600);
  });
});
