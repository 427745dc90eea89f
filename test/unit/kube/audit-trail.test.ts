import { describe, expect, it } from 'vitest';
import { AuditedVisit, type AuditEntry } from '../../../controller/kube/audit-trail.ts';
import { Refusal } from '../../../controller/kube/refusal.ts';
import { ManualClock } from '../../support/manual-clock.ts';

describe('the record of a visit', () => {
  function visit(user: { username: string; groups?: string[] } = { username: 'ann' }) {
    const entries: AuditEntry[] = [];
    const clock = new ManualClock();
    const context = {
      trail: { record: (entry: AuditEntry) => void entries.push(entry) },
      clock,
      onError() {},
    };
    const wish = { user, verb: 'get', subresource: 'log', namespace: 'ci', name: 'job', client: '10.0.0.1' };
    return { entries, clock, audited: new AuditedVisit(context, wish) };
  }

  it('has one line for its beginning, and one for its end', () => {
    const { entries, clock, audited } = visit();
    audited.open({ uid: 'uid-1', attempt: 2 });
    clock.advance(1_500);
    audited.close({ outcome: 'sent to its end', bytesSent: 7 });
    audited.close({ outcome: 'again' });
    expect(entries.map(({ stage, milliseconds }) => [stage, milliseconds])).toEqual([
      ['opened', undefined],
      ['closed', 1_500],
    ]);
  });

  it('has one line where nothing was given', () => {
    const { entries, audited } = visit();
    audited.refuse(new Refusal(403, 'Forbidden', 'no'));
    audited.close({ outcome: 'never opened' });
    expect(entries).toMatchObject([{ stage: 'refused', code: 403, outcome: 'no' }]);
  });

  it('is bounded and printable, whatever names somebody has', () => {
    const long = `\u001b[31m${'x'.repeat(10_000)}\n`;
    const { entries, audited } = visit({ username: long, groups: Array<string>(1_000).fill(long) });
    audited.refuse(new Refusal(403, 'Forbidden', long));
    const line = JSON.stringify(entries);
    expect(line.length).toBeLessThan(8_000);
    expect(line).not.toMatch(/\\u001b|\\n/);
  });
});
