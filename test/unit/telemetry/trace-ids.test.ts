import { describe, expect, test } from 'vitest';
import { parseTraceparent, spanIdOf, traceIdOf } from '../../../controller/telemetry/trace-ids.ts';

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
const spanId = '00f067aa0ba902b7';

describe('the ids of a trace', () => {
  test('are the same in every process and version: these were written down', () => {
    expect(traceIdOf('5f0c9a1b-2d3e-4f50-8a6b-7c8d9e0f1a2b')).toBe('df8b20b0eb70e034ff84601bd21908e6');
    expect(spanIdOf('5f0c9a1b-2d3e-4f50-8a6b-7c8d9e0f1a2b', 'job')).toBe('40e89ba3acc77f4d');
    expect(spanIdOf('5f0c9a1b-2d3e-4f50-8a6b-7c8d9e0f1a2b', 'phase', 1, 'Running', 0)).toBe(
      'f0a8c471ac308f24',
    );
  });

  test('differ between jobs, attempts, phases and their repetitions', () => {
    const ids = [
      spanIdOf('a', 'phase', 1, 'Running', 0),
      spanIdOf('b', 'phase', 1, 'Running', 0),
      spanIdOf('a', 'phase', 2, 'Running', 0),
      spanIdOf('a', 'phase', 1, 'Booting', 0),
      spanIdOf('a', 'phase', 1, 'Running', 1),
      spanIdOf('a', 'job'),
    ];
    expect(new Set(ids).size).toBe(ids.length);
    expect(traceIdOf('a')).not.toBe(traceIdOf('b'));
  });
});

describe('a traceparent', () => {
  test.each([
    ['01', true],
    ['00', false],
    ['03', true],
    ['fe', false],
  ])('with the flags %s is read', (flags, sampled) => {
    expect(parseTraceparent(`00-${traceId}-${spanId}-${flags}`)).toEqual({ traceId, spanId, sampled });
  });

  test.each([
    ['nothing', undefined],
    ['an empty string', ''],
    ['another version', `01-${traceId}-${spanId}-01`],
    ['the version that is forbidden', `ff-${traceId}-${spanId}-01`],
    ['more than there should be', `00-${traceId}-${spanId}-01-more`],
    ['a line more', `00-${traceId}-${spanId}-01\n`],
    ['white space', ` 00-${traceId}-${spanId}-01`],
    ['upper case', `00-${traceId.toUpperCase()}-${spanId}-01`],
    ['a trace id of zeros', `00-${'0'.repeat(32)}-${spanId}-01`],
    ['a span id of zeros', `00-${traceId}-${'0'.repeat(16)}-01`],
    ['a trace id that is too short', `00-${traceId.slice(1)}-${spanId}-01`],
    ['flags that are too short', `00-${traceId}-${spanId}-1`],
    ['a megabyte', `00-${'a'.repeat(2 ** 20)}-${spanId}-01`],
  ])('that is %s is ignored', (_what, value) => {
    expect(parseTraceparent(value)).toBeUndefined();
  });
});
