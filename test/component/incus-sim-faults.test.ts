import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { speakTo } from '../support/incus-endpoint.ts';
import type { EventReader } from '../support/incus-scenarios/scenario.ts';
import type { RequestFault } from '../support/incus-sim/faults.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { ManualClock } from '../support/manual-clock.ts';

let sim: IncusSim;
let speak: ReturnType<typeof speakTo>;
let image: string;

beforeEach(() => {
  sim = new IncusSim();
  speak = speakTo(() => sim.connect());
  image = sim.store.addImage('bb');
});
afterEach(() => sim.close());

function create(name: string) {
  const source = { type: 'image', fingerprint: image };
  return speak.request('POST', '/1.0/instances', { body: { name, source, start: true } });
}

const created = { method: 'POST', path: '/1.0/instances' };

describe('what can befall a request', () => {
  test('lost on its way: it fails and has no effect', async () => {
    sim.faults.on(created, { kind: 'drop', when: 'before' });
    await expect(create('a')).rejects.toThrow();
    expect(sim.names()).toEqual([]);
    expect((await create('a')).status, 'once only').toBe(202);
  });

  test('its answer lost: it fails and has its effect', async () => {
    sim.faults.on(created, { kind: 'drop', when: 'after' });
    await expect(create('a')).rejects.toThrow();
    await expect.poll(() => sim.instance('a')?.power).toBe('Running');
  });

  test('answered otherwise: by an error, by garbage, by more than anyone can read, or not at all', async () => {
    const get = () => speak.request('GET', '/1.0', { abortAfter: 300 });
    const set = (fault: RequestFault, times?: number) => sim.faults.on({ path: /^\/1\.0$/ }, fault, times);
    set({ kind: 'answer', status: 503, body: 'not now' }, 2);
    for (const status of [503, 503, 200]) expect((await get()).status).toBe(status);
    set({ kind: 'garble' });
    const garbled = (await get()).text;
    expect(() => void JSON.parse(garbled)).toThrow();
    set({ kind: 'flood', bytes: 5_000_000 });
    expect((await get()).text.length).toBe(5_000_000);
    set({ kind: 'hang' });
    await expect(get()).rejects.toThrow();
    const off = set({ kind: 'hang' });
    off();
    expect((await get()).status).toBe(200);
  });

  test('late: it takes effect when its time has come', async () => {
    const clock = new ManualClock();
    sim.close();
    sim = new IncusSim({ clock });
    sim.faults.on({}, { kind: 'delay', milliseconds: 5_000 });
    let status = 0;
    const late = speak.request('GET', '/1.0').then((answer) => (status = answer.status));
    await expect.poll(() => sim.requests.count()).toBe(1);
    clock.advance(4_999);
    await speak.request('GET', '/1.0');
    expect(status).toBe(0);
    clock.advance(1);
    expect(await late).toBe(200);
  });

  test('incusd killed before or after: nothing answers until it is started again', async () => {
    for (const when of ['before', 'after'] as const) {
      sim.faults.on(created, { kind: 'kill', when });
      await expect(create(when)).rejects.toThrow();
      await expect(speak.request('GET', '/1.0')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
      await sim.restart();
      expect((await speak.request('GET', '/1.0')).status).toBe(200);
    }
    expect(sim.names()).toEqual(['after']);
  });

  test('each in turn: a test may choose by the number of the request', async () => {
    const failed: number[] = [];
    for (let wanted = 1; wanted <= 3; wanted += 1) {
      sim.close();
      sim = new IncusSim();
      sim.faults.each = (_request, count) =>
        count === wanted ? { kind: 'drop', when: 'before' } : undefined;
      for (let count = 1; count <= 3; count += 1)
        await speak.request('GET', '/1.0').catch(() => failed.push(count));
    }
    expect(failed).toEqual([1, 2, 3]);
  });

  test('every request is written down, with its body', async () => {
    await create('a');
    await speak.request('GET', '/1.0/instances?recursion=1');
    expect(sim.requests.count()).toBe(2);
    expect(sim.requests.of(created)[0]?.body).toContain('"name":"a"');
    expect(sim.requests.of({ method: 'GET' })[0]).toMatchObject({
      path: '/1.0/instances',
      query: 'recursion=1',
    });
  });
});

describe('what can befall events', () => {
  let reader: EventReader;
  beforeEach(async () => {
    reader = await speak.events('type=lifecycle');
  });
  afterEach(() => reader.close());
  const actions = () => reader.seen.map(({ metadata }) => metadata['action']);

  test('twice', async () => {
    sim.daemon.hub.faults.duplicate = true;
    await create('a');
    await expect
      .poll(actions)
      .toEqual(['instance-created', 'instance-created', 'instance-started', 'instance-started']);
  });

  test('out of order', async () => {
    sim.daemon.hub.faults.swap = true;
    sim.daemon.hub.faults.lose = ({ type }) => type === 'operation';
    await create('a');
    await expect.poll(actions).toEqual(['instance-started', 'instance-created']);
  });

  test('lost', async () => {
    sim.daemon.hub.faults.lose = ({ metadata }) =>
      (metadata as { action?: string }).action === 'instance-created';
    await create('a');
    await expect.poll(actions).toEqual(['instance-started']);
  });

  test('cut off: the stream ends, and what happens meanwhile is never told', async () => {
    expect(sim.daemon.hub.listeners).toBe(1);
    sim.daemon.hub.cut();
    await create('a');
    await expect.poll(() => sim.instance('a')?.power).toBe('Running');
    const next = await speak.events('type=lifecycle');
    expect([reader.seen, next.seen]).toEqual([[], []]);
    next.close();
    await expect.poll(() => sim.daemon.hub.listeners).toBe(0);
  });
});

test('connections are counted, and none is left after a thousand', async () => {
  for (let count = 0; count < 1_000; count += 1) await speak.request('GET', '/1.0/projects/default');
  await expect.poll(() => sim.connections).toBe(0);
});
