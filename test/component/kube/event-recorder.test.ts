import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../../controller/clock.ts';
import { KubeClient } from '../../../controller/kube/client.ts';
import { EventRecorder, type Happening, type Regarding } from '../../../controller/kube/event-recorder.ts';
import { Transport } from '../../../controller/kube/transport.ts';
import { FakeApiServer, refuse } from '../../support/fake-api-server.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const job: Regarding = {
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  namespace: 'ci',
  name: 'a',
  uid: 'uid-1',
  resourceVersion: '7',
};
const started: Happening = {
  type: 'Normal',
  reason: 'Started',
  action: 'Start',
  note: 'started cijob-1 on build-1',
};

describe('the event recorder', () => {
  let server: FakeApiServer;
  let transport: Transport;
  let clock: ManualClock;
  let recorder: EventRecorder;
  let dropped: number;
  let errors: unknown[];

  beforeEach(async () => {
    server = await FakeApiServer.start();
    clock = new ManualClock();
    // Requests take real time; all else happens when the test says so.
    transport = new Transport({ config: server.kubeConfig(), clock: systemClock, userAgent: 'test/1' });
    dropped = 0;
    errors = [];
    recorder = new EventRecorder({
      client: new KubeClient(transport),
      clock,
      controller: 'ci.pikaci.dev/cijob-controller',
      instance: 'pod-1',
      onDropped: () => dropped++,
      onError: (error) => errors.push(error),
    });
  });
  afterEach(async () => {
    const closed = recorder.close(1);
    clock.advance(1);
    await closed;
    transport.close();
    await server.stop();
  });

  const stored = () =>
    (server.store.list('events.k8s.io/v1/events', undefined, 0) as { items: Record<string, unknown>[] })
      .items;
  const storedCount = (count: number) => expect.poll(stored, { interval: 2 }).toHaveLength(count);
  const requestCount = (count: number) =>
    vi.waitFor(() => expect(server.requests.length).toBe(count), { timeout: 5000, interval: 2 });
  /** Moves the clock on until that many requests have come. */
  const advanceUntilRequests = (count: number) =>
    vi.waitFor(
      () => {
        clock.advance(500);
        expect(server.requests.length).toBeGreaterThanOrEqual(count);
      },
      { timeout: 5000, interval: 5 },
    );

  it.each(['.', '-', '-.'])(
    'names an Event so that it is a name, also of an object with "%s" where it is cut',
    async (cut) => {
      const name = `${'a'.repeat(230 - cut.length)}${cut}${'b'.repeat(20)}`;
      recorder.record({ ...job, name }, started);
      await storedCount(1);
      expect(stored()[0]?.['metadata']).toMatchObject({
        name: expect.stringMatching(/^a+\.[0-9a-f]{16}$/) as string,
      });
    },
  );

  it('writes who, what, why and about which object', async () => {
    recorder.record({ ...job, annotations: { a: 'b' } } as Regarding, started);
    await storedCount(1);
    expect(stored()[0]?.['regarding']).toEqual(job);
    expect(stored()[0]).toMatchObject({
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { namespace: 'ci', name: expect.stringMatching(/^a\.[0-9a-f]{16}$/) as string },
      eventTime: '2026-01-01T00:00:00.000000Z',
      type: 'Normal',
      reason: 'Started',
      action: 'Start',
      note: 'started cijob-1 on build-1',
      reportingController: 'ci.pikaci.dev/cijob-controller',
      reportingInstance: 'pod-1',
    });
  });

  it('puts events about cluster-scoped objects into the default namespace', async () => {
    recorder.record({ ...job, kind: 'IncusHost', namespace: undefined }, started);
    await storedCount(1);
    expect(server.requests[0]?.path).toBe('/apis/events.k8s.io/v1/namespaces/default/events');
  });

  it('cuts what is too long for the API', async () => {
    const name = 'n'.repeat(253);
    recorder.record({ ...job, name }, { ...started, note: 'x'.repeat(5000), reason: 'R'.repeat(500) });
    await storedCount(1);
    const [event] = stored() as [{ note: string; reason: string; metadata: { name: string } }];
    expect([event.note.length, event.reason.length]).toEqual([1024, 128]);
    expect(event.metadata.name.length).toBeLessThanOrEqual(253);
  });

  it('counts repetitions in a series, with few writes', async () => {
    for (let i = 0; i < 10; i++) recorder.record(job, started);
    clock.advance(0);
    await requestCount(2);
    expect(stored()).toMatchObject([
      { series: { count: 10, lastObservedTime: '2026-01-01T00:00:00.000000Z' } },
    ]);
    for (let i = 0; i < 100; i++) {
      clock.advance(1000);
      recorder.record(job, started);
    }
    await requestCount(3);
    clock.advance(60_000);
    await requestCount(4);
    await expect.poll(stored).toMatchObject([{ series: { count: 110 } }]);
  });

  it('begins anew when the same happens much later', async () => {
    recorder.record(job, started);
    await storedCount(1);
    clock.advance(6 * 60_000);
    recorder.record(job, started);
    await storedCount(2);
  });

  it('keeps apart what differs in anything', async () => {
    recorder.record(job, started);
    recorder.record(job, { ...started, note: 'another' });
    recorder.record(job, { ...started, reason: 'Another' });
    recorder.record({ ...job, uid: 'uid-2' }, started);
    await storedCount(4);
  });

  it('writes a series anew when its Event has been forgotten', async () => {
    recorder.record(job, started);
    await storedCount(1);
    const { namespace, name } = (stored()[0] as { metadata: { namespace: string; name: string } }).metadata;
    server.store.delete('events.k8s.io/v1/events', { namespace, name });
    recorder.record(job, started);
    clock.advance(0);
    await expect.poll(stored).toMatchObject([{ series: { count: 2 }, note: started.note }]);
  });

  it('bounds the events about one object, not those about others', async () => {
    for (let i = 0; i < 100; i++) recorder.record(job, { ...started, note: `${i}` });
    expect(dropped).toBe(75);
    recorder.record({ ...job, uid: 'uid-2' }, started);
    await storedCount(26);
    clock.advance(300_000);
    recorder.record(job, started);
    await storedCount(27);
  });

  it('bounds the events in all', () => {
    for (let i = 0; i < 1000; i++) recorder.record({ ...job, uid: `uid-${i}` }, started);
    expect(dropped).toBe(800);
  });

  it('counts what somebody did by itself: no storm of jobs drowns it', async () => {
    for (let i = 0; i < 1000; i++) recorder.record(job, { ...started, note: `${i}` });
    for (let i = 0; i < 1000; i++) recorder.record({ ...job, uid: `uid-${i}` }, started);
    const before = dropped;
    recorder.record(job, { ...started, reason: 'ShellOpened', note: 'ann opened a shell', isAccess: true });
    expect(dropped).toBe(before);
    await vi.waitFor(() => expect(stored().some(({ reason }) => reason === 'ShellOpened')).toBe(true), {
      timeout: 5000,
    });
  });

  it('never waits for a server that hangs, and drops what does not fit', async () => {
    server.fault = () => true;
    for (let i = 0; i < 3000; i++) {
      recorder.record({ ...job, uid: `uid-${i}` }, started);
      clock.advance(100);
    }
    expect(dropped).toBeGreaterThan(1000);
    expect(server.requests.length).toBeLessThan(10);
    server.fault = () => false;
    server.cut();
    await advanceUntilRequests(10);
  });

  it('tries again after failures that pass', async () => {
    let failures = 2;
    server.fault = (_request, response) => failures-- > 0 && refuse(response, 500, 'InternalError');
    recorder.record(job, started);
    await advanceUntilRequests(3);
    await storedCount(1);
    expect([dropped, errors]).toEqual([0, []]);
  });

  it('writes once, though the first reply was lost', async () => {
    let first = true;
    server.fault = () => {
      const lose = first;
      first = false;
      return lose && 'lose';
    };
    recorder.record(job, started);
    await advanceUntilRequests(2);
    await storedCount(1);
    expect([dropped, errors]).toEqual([0, []]);
  });

  it('drops what is refused for good, and goes on', async () => {
    let first = true;
    server.fault = (_request, response) => {
      const fail = first;
      first = false;
      return fail && refuse(response, 403, 'Forbidden');
    };
    recorder.record(job, started);
    recorder.record(job, { ...started, note: 'next' });
    await storedCount(1);
    expect([dropped, errors.length, server.requests.length]).toEqual([1, 1, 2]);
  });

  it('sends what is waiting when it is closed, but not for ever', async () => {
    for (let i = 0; i < 20; i++) recorder.record(job, { ...started, note: `${i}` });
    await recorder.close(60_000);
    expect(stored()).toHaveLength(20);
    recorder.record({ ...job, uid: 'uid-2' }, started);
    expect(dropped).toBe(1);
  });

  it('leaves a server that hangs when it is closed', async () => {
    server.fault = () => true;
    recorder.record(job, started);
    recorder.record(job, { ...started, note: 'next' });
    await requestCount(1);
    const closed = recorder.close(2000);
    clock.advance(2000);
    await closed;
    expect(dropped).toBe(2);
  });
});
