import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../../controller/clock.ts';
import { ApiError } from '../../../controller/kube/api-error.ts';
import { KubeClient } from '../../../controller/kube/client.ts';
import { Reflector, type ReflectorLimits } from '../../../controller/kube/reflector.ts';
import { Transport } from '../../../controller/kube/transport.ts';
import { FakeApiServer, refuse, type Fault } from '../../support/fake-api-server.ts';
import { widgets, widgetWriter, type Widget } from '../../support/widgets.ts';

/** Reconnects quickly, so that a test sees many of them. */
const quick = { backoff: { baseMs: 1, maxMs: 5 }, healthyAfterMs: 1000 };

describe('the reflector', () => {
  let server: FakeApiServer;
  let transport: Transport;
  let cluster: ReturnType<typeof widgetWriter>;
  let reflector: Reflector<Widget> | undefined;
  let changes: string[];
  let errors: unknown[];

  beforeEach(async () => {
    server = await FakeApiServer.start();
    cluster = widgetWriter(server.store);
    transport = new Transport({ config: server.kubeConfig(), clock: systemClock, userAgent: 'test/1' });
    changes = [];
    errors = [];
  });
  afterEach(async () => {
    await reflector?.stop();
    transport.close();
    await server.stop();
  });

  function reflect(limits: Partial<ReflectorLimits> = quick, onChange?: () => void): Reflector<Widget> {
    reflector = new Reflector({
      client: new KubeClient(transport),
      clock: systemClock,
      resource: widgets,
      query: { namespace: 'ci' },
      onChange: (key, before, after) => {
        const show = (one?: Widget) => (one ? `${one.metadata.uid}=${one.spec.size}` : 'none');
        changes.push(`${key}: ${show(before)} -> ${show(after)}`);
        onChange?.();
      },
      onError: (error) => errors.push(error),
      limits,
    });
    reflector.start();
    return reflector;
  }

  const sees = (view: Record<string, number>) =>
    vi.waitFor(
      () => {
        const seen = reflector!.list().map((one) => [one.metadata.name, one.spec.size] as const);
        expect(Object.fromEntries(seen)).toEqual(view);
      },
      { timeout: 10_000, interval: 5 },
    );
  const eventually = (check: () => boolean) =>
    vi.waitFor(() => expect(check()).toBe(true), { timeout: 10_000, interval: 5 });
  /** Every watch is answered so. */
  const watchesAre = (fault: Fault): void => {
    server.fault = (request, response) => request.watch && fault(request, response);
  };
  /** Open watches end; writes while they are down are a gap. */
  const inAGap = async (write: () => void) => {
    watchesAre((_request, response) => refuse(response, 503, 'ServiceUnavailable'));
    server.cut();
    await eventually(() => server.store.watchers === 0);
    write();
    server.fault = () => false;
  };

  it('lists, then follows', async () => {
    cluster.create('a', 1);
    const { synced } = reflect();
    await synced;
    await sees({ a: 1 });
    cluster.create('b', 2);
    cluster.resize('a', 3);
    await sees({ a: 3, b: 2 });
    cluster.remove('a');
    await sees({ b: 2 });
    expect(changes).toEqual([
      'ci/a: none -> uid-1=1',
      'ci/b: none -> uid-2=2',
      'ci/a: uid-1=1 -> uid-1=3',
      'ci/a: uid-1=3 -> none',
    ]);
    expect([server.count('list'), server.count('watch')]).toEqual([1, 1]);
    expect(errors).toEqual([]);
  });

  it('lists page by page', async () => {
    for (let i = 0; i < 25; i++) cluster.create(`w${i}`);
    await reflect({ ...quick, pageSize: 10 }).synced;
    expect(reflector!.list()).toHaveLength(25);
    expect(server.count('list')).toBe(3);
  });

  it('takes the list whole when it outlives its version', async () => {
    for (let i = 0; i < 25; i++) cluster.create(`w${i}`);
    server.fault = (request) => {
      if (request.query.has('continue')) server.store.compact();
      return false;
    };
    await reflect({ ...quick, pageSize: 10 }).synced;
    expect(reflector!.list()).toHaveLength(25);
    expect(server.requests.at(2)?.query.get('limit')).toBe('0');
  });

  it('carries on where it was when a watch ends', async () => {
    cluster.create('a', 1);
    await reflect().synced;
    await eventually(() => server.store.watchers === 1);
    await inAGap(() => {
      cluster.resize('a', 2);
      cluster.create('b', 1);
    });
    await sees({ a: 2, b: 1 });
  });

  it('carries on from a bookmark', async () => {
    await reflect().synced;
    await eventually(() => server.store.watchers === 1);
    for (let i = 0; i < 3; i++) server.store.compact();
    const before = reflector!.contactAt!;
    await eventually(() => Date.now() > before);
    server.store.bookmark();
    await eventually(() => reflector!.contactAt! > before);
    const version = String(server.store.version);
    server.cut();
    await eventually(() => server.requests.at(-1)?.query.get('resourceVersion') === version);
    expect(server.count('list')).toBe(1);
  });

  it('reports what was deleted and made anew in a gap as two objects', async () => {
    cluster.create('a', 1);
    await reflect().synced;
    await eventually(() => server.store.watchers === 1);
    await inAGap(() => {
      cluster.remove('a');
      cluster.create('a', 9);
      server.store.compact();
    });
    await sees({ a: 9 });
    expect(changes.slice(1)).toEqual(['ci/a: uid-1=1 -> none', 'ci/a: none -> uid-2=9']);
  });

  it('reports what was deleted in a gap', async () => {
    cluster.create('a', 1);
    cluster.create('b', 1);
    await reflect().synced;
    await eventually(() => server.store.watchers === 1);
    await inAGap(() => {
      cluster.remove('a');
      server.store.compact();
    });
    await sees({ b: 1 });
    expect(changes.at(-1)).toBe('ci/a: uid-1=1 -> none');
  });

  it.each<[string, Fault]>([
    ['410 as an answer', (_request, response) => refuse(response, 410, 'Expired')],
    [
      '410 as an event',
      (_request, response) => {
        const object = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' };
        response.end(`${JSON.stringify({ type: 'ERROR', object })}\n`);
        return true;
      },
    ],
  ])('lists anew after a %s', async (_name, fault) => {
    await reflect().synced;
    await eventually(() => server.store.watchers === 1);
    let once = true;
    watchesAre((request, response) => {
      if (!once) return false;
      once = false;
      return fault(request, response);
    });
    server.cut();
    await eventually(() => server.count('list') >= 2);
    cluster.create('b', 2);
    await sees({ b: 2 });
  });

  const misbehaviours: [string, Fault][] = [
    ['closes at once', (_request, response) => Boolean(response.writeHead(200).end())],
    ['resets the connection', (_request, response) => Boolean(response.socket?.resetAndDestroy())],
    ['never answers', () => true],
    ['answers 410', (_request, response) => refuse(response, 410, 'Expired')],
    ['answers 429', (_request, response) => refuse(response, 429, 'TooManyRequests')],
    ['answers 500', (_request, response) => refuse(response, 500, 'InternalError')],
    ['answers 503 with Retry-After', (_request, response) => refuse(response, 503, 'ServiceUnavailable', 1)],
    ['answers with HTML', (_request, response) => Boolean(response.writeHead(200).end('<html>\n'))],
    ['sends half a line', (_request, response) => Boolean(response.writeHead(200).end('{"type":"ADD'))],
    [
      'sends a line without end',
      (_request, response) => {
        response.writeHead(200);
        const more = () => {
          while (!response.destroyed && response.write('x'.repeat(2 ** 16)));
        };
        response.on('drain', more);
        more();
        return true;
      },
    ],
  ];

  it.each(misbehaviours)('misses nothing, and does not hurry, while the server %s', async (_name, fault) => {
    cluster.create('a', 1);
    const startedAt = performance.now();
    watchesAre(fault);
    const backoff = { baseMs: 100, maxMs: 10_000 };
    await reflect({ backoff, answerMs: 100, maxLineBytes: 2 ** 20 }).synced;
    await eventually(() => server.count('watch') >= 3);
    cluster.resize('a', 2);
    const seconds = (performance.now() - startedAt) / 1000;
    // Waits of at least 0.05, 0.1, 0.2 … seconds: no more than one list and one watch after each.
    expect(server.requests.length).toBeLessThanOrEqual(2 * (2 + Math.ceil(Math.log2(seconds / 0.05 + 1))));
    server.fault = () => false;
    await sees({ a: 2 });
    expect(server.requests.length).toBeLessThan(20);
  });

  it('does not hurry while lists are refused either, and syncs when they are not', async () => {
    cluster.create('a', 1);
    server.fault = (_request, response) => refuse(response, 500, 'InternalError');
    const startedAt = performance.now();
    reflect({});
    await eventually(() => server.requests.length >= 3);
    expect(performance.now() - startedAt).toBeGreaterThan(600);
    server.fault = () => false;
    await reflector!.synced;
    await sees({ a: 1 });
  });

  it('stays away as long as the server asks', async () => {
    await reflect().synced;
    await eventually(() => server.store.watchers === 1);
    let refusedAt = 0;
    watchesAre((_request, response) => {
      if (refusedAt > 0) return false;
      refusedAt = performance.now();
      return refuse(response, 429, 'TooManyRequests', 1);
    });
    server.cut();
    await eventually(() => server.store.watchers === 1 && refusedAt > 0);
    expect(performance.now() - refusedAt).toBeGreaterThanOrEqual(990);
  });

  it('leaves a watch that has fallen silent', async () => {
    await reflect({ ...quick, silenceMs: 100 }).synced;
    watchesAre((_request, response) => {
      response.writeHead(200).flushHeaders();
      return true;
    });
    server.cut();
    await eventually(() => server.count('watch') >= 4);
    server.fault = () => false;
    cluster.create('a', 1);
    await sees({ a: 1 });
    expect(errors.some((error) => String(error).includes('silent for 100 ms'))).toBe(true);
  });

  it('goes on when a handler throws', async () => {
    cluster.create('a', 1);
    cluster.create('b', 1);
    reflect(quick, () => {
      throw new Error('handler');
    });
    await reflector!.synced;
    cluster.create('c', 1);
    await sees({ a: 1, b: 1, c: 1 });
    expect(errors).toEqual([new Error('handler'), new Error('handler'), new Error('handler')]);
    expect([server.count('list'), server.count('watch')]).toEqual([1, 1]);
  });

  it('keeps the last it could read of an object, and says that there is more', async () => {
    cluster.create('a', 1);
    cluster.create('bad', 'huge');
    await reflect().synced;
    cluster.resize('a', 'huge');
    cluster.create('c', 1);
    await sees({ a: 1, c: 1 });
    expect([...reflector!.unreadable]).toEqual([
      ['ci/bad', 'uid-2'],
      ['ci/a', 'uid-1'],
    ]);
    expect(errors.every((error) => error instanceof ApiError && error.reason === 'InvalidResponse')).toBe(
      true,
    );
    cluster.resize('a', 4);
    cluster.remove('bad');
    await sees({ a: 4, c: 1 });
    await eventually(() => reflector!.unreadable.size === 0);
  });

  it('lists anew when its list is old, and tells nobody of what has not changed', async () => {
    cluster.create('a', 1);
    await reflect({ ...quick, relistMs: 100, silenceMs: 60 }).synced;
    await eventually(() => server.count('list') >= 3);
    expect(changes).toEqual(['ci/a: none -> uid-1=1']);
  });

  it('stops at any time, at once', async () => {
    server.fault = () => true;
    reflect();
    await eventually(() => server.requests.length === 1);
    await reflector!.stop();
    await eventually(() => server.sockets.size === 0);
    const count = server.requests.length;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.requests.length).toBe(count);
  });

  it('misses nothing and leaks no connection over 1,000 reconnects', async () => {
    cluster.create('a', 0);
    let watches = 0;
    watchesAre((_request, response) => {
      // In turn: an end, a broken connection, a refusal, half a line, and now and then a watch that works.
      switch (watches++ % 5) {
        case 0:
          return Boolean(response.writeHead(200).end());
        case 1:
          return Boolean(response.socket?.destroy());
        case 2:
          return refuse(response, 500, 'InternalError');
        case 3:
          return Boolean(response.writeHead(200).end('{"type":'));
        default:
          setTimeout(() => response.end(), 1);
          return false;
      }
    });
    reflect({ ...quick, backoff: { baseMs: 0, maxMs: 0 } });
    for (let size = 1; size <= 20; size++) {
      const target = size * 50;
      await vi.waitFor(() => expect(watches).toBeGreaterThanOrEqual(target), {
        timeout: 20_000,
        interval: 2,
      });
      cluster.resize('a', size);
    }
    await sees({ a: 20 });
    expect(watches).toBeGreaterThanOrEqual(1000);
    server.fault = () => false;
    await eventually(() => server.store.watchers === 1);
    // One for the watch, one or two kept for the next request.
    await eventually(() => server.sockets.size <= 3);
  });
});
