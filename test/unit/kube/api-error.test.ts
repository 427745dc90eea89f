import { describe, expect, it } from 'vitest';
import { ApiError, errorFromStatus, hasReason } from '../../../controller/kube/api-error.ts';
import { microTime } from '../../../controller/kube/micro-time.ts';

describe('an error of the API', () => {
  it('takes code, reason, message and patience from a Status', () => {
    const body = { kind: 'Status', code: 429, reason: 'TooManyRequests', message: 'slow down' };
    const error = errorFromStatus('GET /x', { ...body, details: { retryAfterSeconds: 3 } }, 500);
    expect(error).toMatchObject({ status: 429, reason: 'TooManyRequests', retryAfterSeconds: 3 });
    expect(error.message).toBe('GET /x: 429 TooManyRequests: slow down');
  });

  it('believes the Retry-After header before the body', () => {
    const body = { kind: 'Status', details: { retryAfterSeconds: 3 } };
    expect(errorFromStatus('GET /x', body, 429, 5).retryAfterSeconds).toBe(5);
  });

  it.each([undefined, null, 'text', {}, { kind: 'Pod' }, { kind: 'Status', reason: 7 }])(
    'makes do with %j for a body',
    (body) => {
      expect(errorFromStatus('GET /x', body, 404)).toMatchObject({ status: 404, reason: 'NotFound' });
      expect(errorFromStatus('GET /x', body, 418)).toMatchObject({ status: 418, reason: 'Unknown' });
    },
  );

  it.each([
    [409, 'Conflict', false],
    [500, 'InternalError', true],
    [504, 'Timeout', true],
    [0, 'NoAnswer', true],
    [0, 'Timeout', true],
    [0, 'Credentials', false],
    [200, 'InvalidResponse', true],
  ])('%s %s leaves the outcome unknown: %s', (status, reason, unknown) => {
    expect(new ApiError('PATCH /x', { status, reason, message: '' }).outcomeUnknown).toBe(unknown);
  });

  it('is told by its reason, not by its text', () => {
    const error = new ApiError('GET /x', { status: 404, reason: 'NotFound', message: 'Conflict' });
    expect([hasReason(error, 'NotFound'), hasReason(error, 'Conflict')]).toEqual([true, false]);
    expect(hasReason(new Error('NotFound'), 'NotFound')).toBe(false);
  });
});

describe('micro time', () => {
  it('has six decimals', () => {
    expect(microTime(Date.parse('2026-01-02T03:04:05.067Z'))).toBe('2026-01-02T03:04:05.067000Z');
  });
});
