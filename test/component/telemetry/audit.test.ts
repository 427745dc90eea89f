import { closeSync, openSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const module = join(import.meta.dirname, '../../../controller/telemetry/audit.ts');

describe('the record of who had access', () => {
  /** Records in a process of its own, whose standard output is this. */
  function record(fields: object, stdout: 'pipe' | number) {
    const script = `
      const { auditLog } = await import(${JSON.stringify(module)});
      const clock = { now: () => Date.parse('2026-01-01T00:00:00Z'), after: () => () => undefined };
      try {
        auditLog(clock).record(${JSON.stringify(fields)});
      } catch (error) {
        console.error('not recorded:', error.code);
      }`;
    const args = ['--input-type=module', '--eval', script];
    return spawnSync(process.execPath, args, { stdio: ['ignore', stdout, 'pipe'], encoding: 'utf8' });
  }

  it('is a line of JSON on standard output that steers no terminal', () => {
    const { stdout } = record({ stage: 'opened', user: 'ann\u009b2J', groups: ['a'], job: 'ci/a' }, 'pipe');
    expect(stdout).toBe(
      `${[
        '{"level":"info","time":"2026-01-01T00:00:00.000Z","audit":true,"msg":"access opened"',
        '"stage":"opened","user":"ann\\u009b2J","groups":["a"],"job":"ci/a"}',
      ].join(',')}\n`,
    );
  });

  it('fails where it cannot be written, so that nothing is given without it', () => {
    const full = openSync('/dev/full', 'w');
    try {
      expect(record({ stage: 'opened' }, full).stderr).toBe('not recorded: ENOSPC\n');
    } finally {
      closeSync(full);
    }
  });
});
