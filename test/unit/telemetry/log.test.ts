import { describe, expect, it } from 'vitest';
import { createLogger, humanLine, type LogLevel } from '../../../controller/telemetry/log.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function bench(level: LogLevel = 'info', format: 'json' | 'text' = 'json') {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  return { lines, log: createLogger({ level, format, clock: new ManualClock(), destination }) };
}

describe('the log', () => {
  it('writes one JSON object a line, with the time in RFC 3339 and the level as a word', () => {
    const { lines, log } = bench();
    log.child({ job: 'ci/a', reconcileID: '1f' }).info({ host: 'build-1' }, 'created');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      {
        level: 'info',
        time: '2026-01-01T00:00:00.000Z',
        job: 'ci/a',
        reconcileID: '1f',
        host: 'build-1',
        msg: 'created',
      },
    ]);
  });

  it('is JSON that steers no terminal, whatever somebody else chose', () => {
    const { lines, log } = bench();
    log.info({ name: 'a\u009b2Jb\u202ec' }, 'd\u009be');
    expect(lines[0]).not.toMatch(/[\u007f-\u009f\u202a-\u202e]/);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ name: 'a\u009b2Jb\u202ec', msg: 'd\u009be' });
  });

  it('leaves out what is below its level', () => {
    const { lines, log } = bench('warn');
    log.info('no');
    log.warn('yes');
    expect(lines).toHaveLength(1);
  });

  it('keeps the message and the stack of an error', () => {
    const { lines, log } = bench();
    log.error({ err: new Error('no such host') }, 'failed');
    expect(lines[0]).toContain('"message":"no such host"');
    expect(lines[0]).toContain('"stack":');
  });

  it.each([
    { headers: { authorization: 'Bearer s3cret' } },
    { token: 's3cret' },
    { request: { environment: { TOKEN: 's3cret' } } },
    { connection: { privateKey: 's3cret' } },
    { request: { spec: { env: [{ name: 'A', value: 's3cret' }] } } },
  ])('hides secrets: %j', (fields) => {
    for (const format of ['json', 'text'] as const) {
      const { lines, log } = bench('info', format);
      log.info(fields, 'sent');
      expect(lines[0]).not.toContain('s3cret');
      expect(lines[0]).toContain('redacted');
    }
  });

  it('reads well on a terminal', () => {
    const { lines, log } = bench('info', 'text');
    log.info({ job: 'ci/a', host: 'build-1', attempt: 2 }, 'created');
    log.warn({ err: new Error('timed out') }, 'no answer');
    expect(lines).toEqual([
      '00:00:00 info  ci/a on build-1: created  attempt=2\n',
      '00:00:00 warn  no answer: timed out\n',
    ]);
  });

  it('lets no control character through to a terminal', () => {
    const line = humanLine(
      JSON.stringify({
        time: '2026-01-01T00:00:00Z',
        level: 'info',
        msg: 'a\u001b[2Jb\nc',
        err: { message: 'd\u001b]0;e\u0007' },
      }),
    );
    expect(line).toBe('00:00:00 info  a\uFFFD[2Jb c: d\uFFFD]0;e\uFFFD\n');
  });
});
