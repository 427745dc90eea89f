import { expect, test } from 'vitest';
import { takeUp, type Ending } from '../../../controller/cli/ending.ts';
import type { EndCause } from '../../../controller/cli/program-end.ts';

const causes: Record<string, EndCause> = {
  ...Object.fromEntries(
    (['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP'] as const).map((signal) => [
      signal,
      { kind: 'signal', signal },
    ]),
  ),
  EPIPE: { kind: 'output', code: 'EPIPE' },
};

/** What is answered to causes that come at these times, and which of them counts in the end. */
function after(...words: [cause: string, at: number][]): string {
  let ending: Ending | undefined;
  const answers = words.map(([name, at]) => {
    const taken = takeUp(ending, causes[name]!, at);
    ending = taken.ending;
    return taken.answer;
  });
  const counts = Object.keys(causes).find((name) => causes[name] === ending?.cause);
  return `${answers.join(', ')}: ${counts}`;
}

test('the first cause calls the jobs off', () => {
  for (const name of Object.keys(causes)) expect(after([name, 7])).toBe(`cancel: ${name}`);
});

test('Ctrl-C again leaves at once, but not one that a wrapper hands on', () => {
  expect(after(['SIGINT', 0], ['SIGINT', 500])).toBe('cancel, go on: SIGINT');
  expect(after(['SIGINT', 0], ['SIGINT', 501])).toBe('cancel, leave: SIGINT');
  expect(after(['SIGINT', 0], ['SIGINT', 20], ['SIGQUIT', 501])).toBe('cancel, go on, leave: SIGINT');
  expect(after(['SIGTERM', 0], ['SIGINT', 501])).toBe('cancel, leave: SIGTERM');
});

test('what comes again from a closed terminal or a service manager does not', () => {
  expect(after(['SIGHUP', 0], ['SIGHUP', 9_000])).toBe('cancel, go on: SIGHUP');
  expect(after(['SIGTERM', 0], ['SIGTERM', 9_000])).toBe('cancel, go on: SIGTERM');
  expect(after(['SIGHUP', 0], ['EPIPE', 9_000])).toBe('cancel, go on: SIGHUP');
});

test('one Ctrl-C counts as such, whether the reader of the output or the signal is noticed first', () => {
  expect(after(['EPIPE', 0], ['SIGINT', 500])).toBe('cancel, go on: SIGINT');
  expect(after(['SIGINT', 0], ['EPIPE', 1])).toBe('cancel, go on: SIGINT');
  expect(after(['EPIPE', 0], ['SIGHUP', 3])).toBe('cancel, go on: SIGHUP');
  expect(after(['EPIPE', 0], ['SIGTERM', 501])).toBe('cancel, go on: EPIPE');
  expect(after(['EPIPE', 0], ['SIGINT', 400], ['SIGINT', 501])).toBe('cancel, go on, leave: SIGINT');
});
