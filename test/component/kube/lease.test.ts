import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KubeClient } from '../../../controller/kube/client.ts';
import { LeaderElection } from '../../../controller/kube/lease.ts';
import { Transport } from '../../../controller/kube/transport.ts';
import { FakeApiServer, refuse } from '../../support/fake-api-server.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const lease = { namespace: 'ci', name: 'cijob-controller' };
const collection = 'coordination.k8s.io/v1/leases';

/** A process that wants to lead. */
interface Candidate {
  clock: ManualClock;
  speed: number;
  election: LeaderElection;
  transport: Transport;
  lost: string[];
  errors: unknown[];
  stop: AbortController;
  state: { frozen: boolean };
}

describe('the leader election', () => {
  let server: FakeApiServer;
  let candidates: Candidate[];

  beforeEach(async () => {
    server = await FakeApiServer.start();
    candidates = [];
  });
  afterEach(async () => {
    for (const { stop, election, transport } of candidates) {
      stop.abort(new Error('over'));
      const released = election.release();
      await passUntil(released.then(() => true));
      transport.close();
    }
    await server.stop();
  });

  /** Starts one. Its clock is its own: `skew` off, and `speed` times as fast as the real time. */
  function candidate(identity: string, { skew = 0, speed = 1 } = {}): Candidate {
    const clock = new ManualClock(Date.parse('2026-01-01T00:00:00Z') + skew);
    const transport = new Transport({ config: server.kubeConfig(), clock, userAgent: identity });
    const lost: string[] = [];
    const errors: unknown[] = [];
    const stop = new AbortController();
    const election = new LeaderElection({
      client: new KubeClient(transport),
      clock,
      lease,
      identity,
      onLost: (reason) => lost.push(reason),
      onError: (error) => errors.push(error),
    });
    const state = { frozen: false };
    const one = { clock, speed, election, transport, lost, errors, stop, state };
    election.acquire(stop.signal).catch(() => undefined);
    candidates.push(one);
    return one;
  }

  /** Lets real time pass for everybody, in steps small enough for requests to be done within. */
  async function pass(seconds: number): Promise<void> {
    for (let ms = 0; ms < seconds * 1000; ms += 250) {
      for (const { clock, speed, state } of candidates) if (!state.frozen) clock.advance(250 * speed);
      await new Promise((resolve) => setTimeout(resolve, 2));
      expect(
        candidates.filter(({ election, state }) => election.leading && !state.frozen).length,
      ).toBeLessThan(2);
    }
  }

  async function passUntil(what: Promise<boolean> | (() => boolean)): Promise<void> {
    let done = false;
    if (typeof what !== 'function') void what.then(() => (done = true));
    for (let step = 0; step < 2000; step++) {
      if (typeof what === 'function' ? what() : done) return;
      await pass(0.25);
    }
    throw new Error('it never came to be');
  }

  const record = () => server.store.get(collection, lease)['spec'] as Record<string, unknown>;

  it('is won by the first, with a record as client-go writes it', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    expect(record()).toEqual({
      holderIdentity: 'a',
      leaseDurationSeconds: 15,
      acquireTime: expect.stringMatching(/^2026-01-01T00:00:\d\d\.\d{6}Z$/) as string,
      renewTime: expect.stringMatching(/\.\d{6}Z$/) as string,
      leaseTransitions: 0,
    });
  });

  it('lets the leader renew, in one request each time, while the other waits', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    const b = candidate('b');
    const count = server.requests.length;
    await pass(60);
    expect([a.election.leading, b.election.leading]).toEqual([true, false]);
    const since = server.requests.slice(count);
    const writes = since.filter(({ method }) => method === 'PUT').length;
    expect(writes).toBeGreaterThanOrEqual(25);
    expect(writes).toBeLessThanOrEqual(31);
    expect(since.length - writes).toBeLessThanOrEqual(32);
    expect(record()['leaseTransitions']).toBe(0);
  });

  it('passes on when the leader dies, not before its lease has run out', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    const b = candidate('b');
    await pass(5);
    a.state.frozen = true;
    const diedAt = b.clock.now();
    await passUntil(() => b.election.leading);
    expect(b.clock.now() - diedAt).toBeGreaterThanOrEqual(15_000 - 2500);
    expect(b.clock.now() - diedAt).toBeLessThan(22_000);
    expect(record()).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 });
    // It wakes up, and its clock has moved on meanwhile.
    a.clock.advance(b.clock.now() - diedAt);
    a.state.frozen = false;
    await passUntil(() => a.lost.length === 1);
    expect(b.election.leading).toBe(true);
  });

  it.each([
    { skew: 3_600_000, speed: 1 },
    { skew: -3_600_000, speed: 1 },
    { skew: 0, speed: 1.3 },
    { skew: 600_000, speed: 0.8 },
  ])('does not believe clocks: %j', async (difference) => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    const b = candidate('b', difference);
    await pass(90);
    expect([a.election.leading, b.election.leading]).toEqual([true, false]);
    a.state.frozen = true;
    await passUntil(() => b.election.leading);
  });

  it('is over at once when the leader releases it', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    const b = candidate('b');
    await pass(1);
    await a.election.release();
    const releasedAt = b.clock.now();
    expect(a.election.leading).toBe(false);
    expect(record()['holderIdentity']).toBeUndefined();
    await passUntil(() => b.election.leading);
    expect(b.clock.now() - releasedAt).toBeLessThan(6000);
    expect(a.lost).toEqual([]);
  });

  it('never releases what belongs to another', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    server.store.patch(collection, lease, { spec: { holderIdentity: 'b' } }, undefined, 'merge');
    await a.election.release();
    expect(record()['holderIdentity']).toBe('b');
  });

  it('is lost when the API server does not answer in time', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    const since = a.clock.now();
    server.fault = () => true;
    await passUntil(() => a.lost.length > 0);
    expect(a.clock.now() - since).toBeLessThanOrEqual(10_500);
    expect(a.lost).toEqual(['not renewed within 10000 ms']);
    expect(a.election.leading).toBe(false);
  });

  it('is lost at once when the record names another', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    server.store.patch(collection, lease, { spec: { holderIdentity: 'b' } }, undefined, 'merge');
    const since = a.clock.now();
    await passUntil(() => a.lost.length > 0);
    expect(a.clock.now() - since).toBeLessThan(3000);
    expect(a.lost).toEqual(['b holds the lease']);
  });

  it('survives errors that pass', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    server.fault = (_request, response) => refuse(response, 500, 'InternalError');
    await pass(7);
    server.fault = () => false;
    await pass(30);
    expect([a.election.leading, a.lost.length, a.errors.length > 0]).toEqual([true, 0, true]);
  });

  it('survives replies that are lost, also that of the request that won', async () => {
    let requests = 0;
    server.fault = ({ method }) => (method !== 'GET' && requests++ % 2 === 0 ? 'lose' : false);
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    await pass(60);
    expect([a.election.leading, a.lost]).toEqual([true, []]);
    expect(record()['leaseTransitions']).toBe(0);
  });

  it('takes over a lease that somebody deleted', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    server.store.delete(collection, lease);
    await pass(10);
    expect([a.election.leading, record()['holderIdentity']]).toEqual([true, 'a']);
  });

  it('ends an attempt to lead when told to', async () => {
    const a = candidate('a');
    await passUntil(() => a.election.leading);
    const b = candidate('b');
    await pass(1);
    b.stop.abort(new Error('over'));
    a.state.frozen = true;
    await pass(40);
    expect(b.election.leading).toBe(false);
  });

  it('has one leader at most, whatever is lost', async () => {
    let seed = 1;
    const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    server.fault = (_request, response) => {
      const roll = random();
      if (roll < 0.1) return 'lose';
      if (roll < 0.2) return Boolean(response.socket?.destroy());
      return roll < 0.3 && refuse(response, 500, 'InternalError');
    };
    candidate('a');
    candidate('b', { skew: 1e6, speed: 1.1 });
    candidate('c', { skew: -1e6, speed: 0.9 });
    await pass(300);
    expect(candidates.some(({ election, lost }) => election.leading || lost.length > 0)).toBe(true);
  });
});
