import { describe, expect, it } from 'vitest';
import type { CiJob } from '../../../controller/api/cijob.ts';
import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { description } from '../../../controller/cli/describe.ts';
import { linesOf } from '../../../controller/cli/get.ts';
import { age, table } from '../../../controller/cli/table.ts';
import { printable } from '../../../controller/printable.ts';

const created = '2026-01-01T00:00:00Z';
const now = Date.parse(created);
/** What moves a cursor, rings, hides, or begins something that does. */
const control = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;
const hostile = 'a\u001b[2Jb\rc\u0008d\u0007e\u009b31mf\u007fg\u001b]0;title\u0007h';

describe('a guest’s text', () => {
  it('has no control characters left, and everything else as it was', () => {
    const range = (from: number, to: number) =>
      Array.from({ length: to - from + 1 }, (_, index) => from + index);
    const replaced = range(0, 0xffff).filter((code) => {
      const one = String.fromCharCode(code);
      return printable(`a${one}b`) !== `a${one}b`;
    });
    const reordering = [...range(0x202a, 0x202e), ...range(0x2066, 0x2069)];
    expect(replaced).toEqual([...range(0, 8), ...range(0x0b, 0x1f), ...range(0x7f, 0x9f), ...reordering]);
    expect(printable('Zeile 1\n\tüber 漢字 🎉\n')).toBe('Zeile 1\n\tüber 漢字 🎉\n');
    expect(printable(hostile)).toBe('a\uFFFD[2Jb\uFFFDc\uFFFDd\uFFFDe\uFFFD31mf\uFFFDg\uFFFD]0;title\uFFFDh');
  });

  const condition = { status: 'False', reason: 'R', message: hostile, lastTransitionTime: created } as const;
  const failure = { class: 'Test', reason: 'R', message: hostile, excerpt: hostile } as const;
  it.each<[string, CiJobStatus]>([
    ['of one that failed', { phase: 'Failed', completionTime: created, failure }],
    [
      'of one that waits for its next attempt',
      { phase: 'Pending', conditions: [{ ...condition, type: 'Admitted' }] },
    ],
    [
      'of one out of sight',
      { phase: 'Running', conditions: [{ ...condition, type: 'Ready', status: 'Unknown' }] },
    ],
    [
      'of its artifacts',
      {
        ...{ phase: 'Succeeded' },
        artifacts: {
          ...{ files: 0, bytes: 0, skipped: 0, truncated: false },
          notes: [{ reason: 'R', message: hostile }],
        },
      },
    ],
    [
      'of one that was lost before',
      { phase: 'Running', attempts: [{ attempt: 1, reason: 'R', message: hostile, finishedAt: created }] },
    ],
  ])('reaches no terminal as it is, by any word about the job: %s', (_what, status) => {
    const job = {
      metadata: { name: 'a', namespace: 'ci', uid: 'u', creationTimestamp: created },
      spec: { command: 'true', instance: { image: 'image' }, holdOnFailureSeconds: 0 },
      status,
    } as CiJob;
    const shown = [...description(job, undefined, now), ...linesOf([job], { output: 'wide' }, now)].join(
      '\n',
    );
    expect(shown).not.toMatch(control);
  });
});

describe('a table', () => {
  it('has columns as wide as their widest cell, and nothing behind the last', () => {
    expect(
      table([
        ['NAME', 'PHASE'],
        ['a', ''],
        ['a-long-name', 'Running'],
      ]),
    ).toEqual(['NAME          PHASE', 'a', 'a-long-name   Running']);
  });
});

describe('an age', () => {
  it.each([
    [-5, '0s'],
    [119, '119s'],
    [120, '2m'],
    [7199, '119m'],
    [7200, '2h'],
    [172_799, '47h'],
    [172_800, '2d'],
  ])('of %i seconds is %s', (seconds, expected) => {
    expect(age(created, now + seconds * 1000)).toBe(expected);
  });
});
