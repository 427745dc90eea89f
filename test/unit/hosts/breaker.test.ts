import { describe, expect, it } from 'vitest';
import { Breaker } from '../../../controller/hosts/breaker.ts';

const now = Date.parse('2026-01-01T00:00:00Z');
const fails = (breaker: Breaker, namespace: string, why = '', at = now) =>
  breaker.failed(namespace, why, at, 1);

/** One that has just been tripped by three namespaces, without jitter: its pause is 15 s. */
function tripped(): Breaker {
  const breaker = new Breaker();
  for (const namespace of ['a', 'b', 'e', 'a']) fails(breaker, namespace);
  fails(breaker, 'b', 'the pool is full');
  return breaker;
}

describe('the breaker of a host', () => {
  it('tolerates two failed creations, and any number of them that are not in a row', () => {
    const breaker = new Breaker();
    for (let round = 0; round < 5; round += 1) {
      expect([fails(breaker, 'a'), fails(breaker, 'b')]).toEqual([0, 0]);
      expect([breaker.state(now), breaker.refusal(now)]).toEqual(['open', undefined]);
      expect([breaker.succeeded('a'), breaker.succeeded('b')]).toEqual([false, false]);
    }
  });

  it('keeps jobs away once three fail beside those of the namespace that failed most, for a while, and says why', () => {
    const breaker = tripped();
    expect(breaker.state(now + 14_999)).toBe('closed');
    expect(breaker.refusal(now + 14_999)).toEqual({
      all: true,
      message: 'creating instances failed 5 times in a row: the pool is full',
    });
    expect([breaker.state(now + 15_000), breaker.refusal(now + 15_000)]).toEqual(['trial', undefined]);
  });

  it('lets one job through after the pause, whose creation decides', () => {
    const breaker = tripped();
    breaker.given('c', 'i', now + 15_000, 1);
    expect(breaker.state(now + 15_001)).toBe('closed');
    expect(breaker.succeeded('c')).toBe(true);
    expect(breaker.state(now + 15_001)).toBe('open');
  });

  it('lets another one through when nothing came of that one', () => {
    const breaker = tripped();
    breaker.given('c', 'i', now + 15_000, 1);
    expect(breaker.state(now + 30_000)).toBe('trial');
  });

  it('lets another one through at once when that one gave its slot back and had created nothing', () => {
    const breaker = tripped();
    breaker.given('c', 'i', now + 15_000, 1);
    breaker.released('d', 'another');
    expect(breaker.state(now + 15_001)).toBe('closed');
    breaker.released('c', 'i');
    expect(breaker.state(now + 15_001)).toBe('trial');
    breaker.given('d', 'j', now + 15_001, 1);
    fails(breaker, 'd', '', now + 15_002);
    breaker.released('d', 'j');
    expect(breaker.state(now + 15_003)).toBe('closed');
  });

  it('doubles the pause with each trial that fails, up to five minutes, and shortens it by chance', () => {
    const breaker = tripped();
    const pauses = Array.from({ length: 6 }, () => fails(breaker, 'a'));
    expect(pauses).toEqual([30_000, 60_000, 120_000, 240_000, 300_000, 300_000]);
    expect(breaker.failed('a', '', now, 0)).toBe(225_000);
  });
});

describe('a namespace whose creations fail, where others do not try', () => {
  it('closes the host to itself alone, however often it fails', () => {
    const breaker = new Breaker();
    for (let failures = 0; failures < 20; failures += 1) fails(breaker, 'a', 'Overflow');
    expect(breaker.state(now)).toBe('open');
    expect([breaker.stateFor('a', now), breaker.stateFor('b', now)]).toEqual(['closed', 'open']);
    expect(breaker.refusal(now)).toEqual({
      all: false,
      message:
        'no instances are created for now for jobs of namespace a, where it failed 20 times in a row: Overflow',
    });
  });

  it('gets no more than one trial a pause, and the successes of others do not help it', () => {
    const breaker = new Breaker();
    for (let failures = 0; failures < 3; failures += 1) fails(breaker, 'a');
    expect(breaker.succeeded('b')).toBe(false);
    expect([breaker.stateFor('a', now), breaker.namespacesOnTrial(now)]).toEqual(['closed', []]);
    expect([breaker.stateFor('a', now + 15_000), breaker.namespacesOnTrial(now + 15_000)]).toEqual([
      'trial',
      ['a'],
    ]);
    breaker.given('a', 'i', now + 15_000, 1);
    expect(breaker.stateFor('a', now + 15_001)).toBe('closed');
    expect(breaker.succeeded('a')).toBe(true);
    expect(breaker.stateFor('a', now + 15_001)).toBe('open');
  });

  it('does not close the host together with others that fail now and then', () => {
    const breaker = new Breaker();
    for (let round = 0; round < 5; round += 1) {
      for (let failures = 0; failures < 3; failures += 1) fails(breaker, 'a');
      breaker.succeeded('b');
      fails(breaker, 'b');
      breaker.succeeded('b');
      expect(breaker.state(now)).toBe('open');
    }
  });
});

describe('a second namespace whose creations fail', () => {
  it('closes the host to all no sooner because another failed so often before', () => {
    const breaker = new Breaker();
    for (let failures = 0; failures < 20; failures += 1) fails(breaker, 'attacker');
    for (let failures = 0; failures < 2; failures += 1) fails(breaker, 'b');
    expect([breaker.state(now), breaker.stateFor('b', now)]).toEqual(['open', 'open']);
    fails(breaker, 'b');
    expect(breaker.state(now)).toBe('closed');
  });

  it('closes it soon where every creation fails, however they are spread', () => {
    const failuresOf = (namespaces: number) => {
      const breaker = new Breaker();
      let failures = 0;
      while (breaker.state(now) === 'open') fails(breaker, `n${failures++ % namespaces}`);
      return failures;
    };
    expect([2, 3, 4, 9].map(failuresOf)).toEqual([6, 5, 4, 4]);
  });
});

describe('instances that were made and did not start', () => {
  const doesNotStart = (breaker: Breaker, namespace: string) => breaker.failed(namespace, '', now, 1, true);

  it('count against their namespace and not against the host', () => {
    const breaker = new Breaker();
    for (let round = 0; round < 5; round += 1)
      for (const name of ['a', 'b', 'c']) doesNotStart(breaker, name);
    expect([breaker.state(now), breaker.stateFor('a', now), breaker.stateFor('d', now)]).toEqual([
      ...['open', 'closed', 'open'],
    ]);
  });

  it('decide no trial, and put their namespace behind those that did not fail', () => {
    const breaker = tripped();
    breaker.given('c', 'i', now + 15_000, 1);
    doesNotStart(breaker, 'c');
    expect([breaker.state(now + 15_001), breaker.turnOf('c')[0]]).toEqual(['closed', 1]);
    breaker.released('c', 'i');
    expect(breaker.state(now + 15_001)).toBe('trial');
  });
});

describe('the trials of a failing host', () => {
  it('go first to namespaces that did not fail there, and then to each in its turn', () => {
    const breaker = tripped();
    const order = (...namespaces: string[]) =>
      namespaces.sort((one, other) => {
        const [[failedA, lastA], [failedB, lastB]] = [breaker.turnOf(one), breaker.turnOf(other)];
        return failedA - failedB || lastA - lastB;
      });
    expect(order('a', 'b', 'c')).toEqual(['c', 'a', 'b']);
    breaker.given('c', 'i', now, 1);
    expect(order('a', 'c', 'd')).toEqual(['d', 'c', 'a']);
    breaker.given('a', 'j', now, 1);
    expect(order('a', 'b')).toEqual(['b', 'a']);
  });
});

it('a pause is whole milliseconds, and over when a timer of that length fires', () => {
  for (const jitter of [0, 1 / 3, 0.123_456, 0.999_9]) {
    const breaker = new Breaker();
    const pauses = [1, 2, 3].map(() => breaker.failed('a', 'full', now, jitter));
    const pause = pauses[2] ?? 0;
    expect(Number.isInteger(pause), String(pause)).toBe(true);
    expect([breaker.stateFor('a', now + pause - 1), breaker.stateFor('a', now + pause)]).toEqual([
      'closed',
      'trial',
    ]);
  }
});
