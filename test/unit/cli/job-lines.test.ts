import { describe, expect, it } from 'vitest';
import { failedEnds } from '../../../controller/cli/failed-ends.ts';
import { JobLines, longestLine } from '../../../controller/cli/job-lines.ts';

function start(jobs: readonly string[], terminal = false) {
  const printed: Buffer[] = [];
  const lines = new JobLines(jobs, (bytes) => printed.push(Buffer.from(bytes)), terminal);
  const take = (job: string, chunk: Buffer | string, attempt = 1) => {
    const [namespace = '', name = ''] = job.split('/');
    const instance = `${job}-${attempt}`;
    lines.take({ namespace, name, instance, uid: '', attempt }, Buffer.from(chunk));
  };
  return { lines, take, bytes: () => Buffer.concat(printed), text: () => Buffer.concat(printed).toString() };
}

describe('the lines of several jobs', () => {
  it('come each after the name of its job, below each other, in the order of each job', () => {
    const { take, text } = start(['default/good', 'default/bad']);
    take('default/good', 'one\ntwo\n');
    take('default/bad', 'the reason\n\n');
    take('default/good', 'three\n');
    expect(text()).toBe('good | one\ngood | two\nbad  | the reason\nbad  | \ngood | three\n');
  });

  it('are whole, however their bytes come', () => {
    const { lines, take, text } = start(['ci/a', 'ci/b']);
    take('ci/a', 'be');
    take('ci/b', 'other\n');
    take('ci/a', 'gin\nend');
    expect(text()).toBe('b | other\na | begin\n');
    lines.end('ci/a');
    lines.end('ci/a');
    lines.end('ci/b');
    expect(text()).toBe('b | other\na | begin\na | end\n');
  });

  it('of a new attempt do not go on with the last line of the one before', () => {
    const { lines, take, text } = start(['ci/a', 'ci/b']);
    take('ci/a', 'lost');
    take('ci/a', 'again\n', 2);
    lines.end('ci/a');
    expect(text()).toBe('a | again\na | lost\n');
  });

  it('keep every byte', () => {
    const { take, bytes } = start(['ci/a', 'ci/b']);
    const odd = Buffer.from([0x00, 0xff, 0x0d, 0x1b, 0x5b, 0x32, 0x4a, 0x0a]);
    take('ci/a', odd);
    expect(bytes()).toEqual(Buffer.concat([Buffer.from('a | '), odd]));
  });

  it('are cut where one does not end, not within a character', () => {
    const { take, text } = start(['ci/a', 'ci/b']);
    const line = `${'x'.repeat(longestLine - 1)}é and more`;
    take('ci/a', line);
    expect(text()).toBe(`a | ${'x'.repeat(longestLine - 1)}\n`);
    take('ci/a', '\n');
    expect(text()).toBe(`a | ${'x'.repeat(longestLine - 1)}\na | é and more\n`);
  });

  it('name the namespace, too, where jobs of two have the same name', () => {
    const { take, text } = start(['ci/a', 'dev/a']);
    take('ci/a', 'x\n');
    expect(text()).toBe('ci/a  | x\n');
  });

  it('leave room for the line beside a long name', () => {
    const { take, text } = start([`ci/${'a'.repeat(253)}`, 'ci/b']);
    take('ci/b', 'x\n');
    expect(text()).toBe(`b${' '.repeat(39)} | x\n`);
    const alike = ['c', 'd'].map((middle) => `ci/${'a'.repeat(100)}${middle}${'a'.repeat(100)}`);
    const long = start(alike);
    long.take(alike[0] ?? '', 'x\n');
    expect(long.text()).toBe(`${'a'.repeat(100)}c${'a'.repeat(100)} | x\n`);
  });

  it('show on a terminal what such a line comes to, and cannot pass for one of another job', () => {
    const { take, text } = start(['ci/a', 'ci/b'], true);
    take('ci/a', ' 10 %\r100 %\r\n\u001b[31mred\n\u001b[1A\u001b[2Kb | forged\n');
    const plain = text().replaceAll(/\u001b\[\d+m/g, '');
    expect(plain).toBe('a | 100 %\na | red\na | \uFFFD[1A\uFFFD[2Kb | forged\n');
    // Its colour ends with its line.
    expect(text()).toContain('\u001b[31mred\u001b[0m\n');
  });
});

describe('the ends of the logs of failed jobs', () => {
  const failure = { class: 'Test', reason: 'NonZeroExitCode', message: 'm' } as const;

  it('are shown with the name and the reason', () => {
    const jobs = [
      ['ci/good', { exitCode: 0 }],
      ['ci/bad', { failure: { ...failure, excerpt: 'the\nreason\n' } }],
      ['ci/silent', { failure }],
    ] as const;
    expect(failedEnds(jobs)).toEqual([
      'ci/bad failed, Test: NonZeroExitCode; its log ends with:',
      '  the',
      '  reason',
    ]);
  });

  it('are twenty lines', () => {
    const excerpt = Array.from({ length: 100 }, (_, index) => `${index}\n`).join('');
    expect(failedEnds([['ci/bad', { failure: { ...failure, excerpt } }]])).toHaveLength(21);
  });
});
