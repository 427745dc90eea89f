import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../../controller/clock.ts';
import { ApiError, hasReason } from '../../../controller/kube/api-error.ts';
import { KubeClient } from '../../../controller/kube/client.ts';
import { Transport } from '../../../controller/kube/transport.ts';
import { answer, FakeApiServer, refuse } from '../../support/fake-api-server.ts';
import { widgetCollection, widgets, widgetWriter } from '../../support/widgets.ts';

const a = { namespace: 'ci', name: 'a' };

describe('the API client', () => {
  let server: FakeApiServer;
  let transport: Transport;
  let client: KubeClient;
  let seen: string[];

  beforeEach(async () => {
    server = await FakeApiServer.start();
    seen = [];
    transport = new Transport({
      config: server.kubeConfig(),
      clock: systemClock,
      userAgent: 'test/1',
      onRequest: (method, code) => seen.push(`${method} ${code}`),
    });
    client = new KubeClient(transport);
  });
  afterEach(async () => {
    transport.close();
    await server.stop();
  });

  const failure = async (promise: Promise<unknown>): Promise<ApiError> => {
    const error: unknown = await promise.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(ApiError);
    return error as ApiError;
  };

  it('creates, reads, patches and deletes, one request each, over one connection', async () => {
    await client.create(widgets, 'ci', { metadata: { name: 'a' }, spec: { size: 1 } });
    expect((await client.get(widgets, a)).spec.size).toBe(1);
    expect((await client.mergePatch(widgets, a, { spec: { size: 2 } })).spec.size).toBe(2);
    await client.delete(widgets, a);
    expect(hasReason(await failure(client.get(widgets, a)), 'NotFound')).toBe(true);
    expect(seen).toEqual(['POST 201', 'GET 200', 'PATCH 200', 'DELETE 200', 'GET 404']);
    expect(server.requests).toHaveLength(5);
    expect(server.connections).toBe(1);
  });

  it('reads only what the schema names', async () => {
    server.store.create(widgetCollection, {
      metadata: { ...a, managedFields: [{}] },
      spec: { size: 1 },
      status: {},
    });
    const widget = await client.get(widgets, a);
    expect(Object.keys(widget)).toEqual(['metadata', 'spec']);
    expect(widget.metadata).not.toHaveProperty('managedFields');
  });

  it('names the kind of patch in the content type', async () => {
    widgetWriter(server.store).create('a');
    await client.mergePatch(widgets, a, {});
    await failure(client.jsonPatch(widgets, a, [], { resourceVersion: '7' }));
    expect(server.requests.map(({ contentType }) => contentType)).toEqual([
      'application/merge-patch+json',
      'application/json-patch+json',
    ]);
    expect(server.requests[1]?.body).toEqual([
      { op: 'replace', path: '/metadata/resourceVersion', value: '7' },
    ]);
  });

  it('refuses a guarded patch once the object has moved on', async () => {
    const writer = widgetWriter(server.store);
    const { resourceVersion } = writer.create('a').metadata;
    writer.resize('a', 2);
    const error = await failure(client.mergePatch(widgets, a, { spec: { size: 3 } }, { resourceVersion }));
    expect(error.reason).toBe('Conflict');
    expect((await client.get(widgets, a)).spec.size).toBe(2);
  });

  it('deletes only the object that was meant', async () => {
    widgetWriter(server.store).create('a');
    expect((await failure(client.delete(widgets, a, { uid: 'another' }))).reason).toBe('Conflict');
  });

  it('lists in pages', async () => {
    const writer = widgetWriter(server.store);
    for (const name of ['a', 'b', 'c']) writer.create(name);
    const first = await client.list(widgets, { namespace: 'ci' }, { limit: 2 });
    expect(first.items).toHaveLength(2);
    const second = await client.list(widgets, { namespace: 'ci' }, { limit: 2, continue: first.continue });
    expect(second.items).toHaveLength(1);
    expect(second.continue).toBeUndefined();
  });

  it('sends a refused request again when the server has said for how long to wait', async () => {
    widgetWriter(server.store).create('a');
    let refusals = 2;
    server.fault = (_request, response) => refusals-- > 0 && refuse(response, 429, 'TooManyRequests', 0);
    expect((await client.get(widgets, a)).spec.size).toBe(1);
    expect(seen).toEqual(['GET 429', 'GET 429', 'GET 200']);
  });

  it('waits as long as the server said', async () => {
    widgetWriter(server.store).create('a');
    server.fault = (_request, response) =>
      server.requests.length === 1 && refuse(response, 503, 'ServiceUnavailable', 1);
    const startedAt = performance.now();
    await client.get(widgets, a);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(990);
  });

  it('gives up after some refusals, and passes on for how long to stay away', async () => {
    server.fault = (_request, response) => refuse(response, 429, 'TooManyRequests', 0);
    const error = await failure(client.get(widgets, a));
    expect(error).toMatchObject({ status: 429, reason: 'TooManyRequests', retryAfterSeconds: 0 });
    expect(server.requests).toHaveLength(4);
  });

  it('leaves long waits to the caller', async () => {
    server.fault = (_request, response) => refuse(response, 429, 'TooManyRequests', 60);
    expect(await failure(client.get(widgets, a))).toMatchObject({ status: 429, retryAfterSeconds: 60 });
    expect(server.requests).toHaveLength(1);
  });

  it('does not repeat a failure without Retry-After', async () => {
    server.fault = (_request, response) => refuse(response, 500, 'InternalError');
    const error = await failure(client.mergePatch(widgets, a, {}));
    expect(error).toMatchObject({ status: 500, reason: 'InternalError', outcomeUnknown: true });
    expect(server.requests).toHaveLength(1);
  });

  it('says what it can of an answer that is no Status', async () => {
    server.fault = (_request, response) => {
      response.writeHead(503).end('<html>'.repeat(100_000));
      return true;
    };
    const error = await failure(client.get(widgets, a));
    expect(error).toMatchObject({ status: 503, reason: 'ServiceUnavailable' });
    expect(error.message.length).toBeLessThan(2000);
  });

  it('caps the message of an error', async () => {
    server.fault = (_request, response) =>
      answer(response, 422, { kind: 'Status', reason: 'Invalid', message: 'x'.repeat(10_000) });
    expect((await failure(client.get(widgets, a))).message.length).toBeLessThan(1200);
  });

  it('tells that the outcome of a write is unknown when the connection breaks', async () => {
    server.fault = (_request, response) => {
      response.destroy();
      return true;
    };
    const error = await failure(client.create(widgets, 'ci', { metadata: { name: 'a' } }));
    expect(error).toMatchObject({ status: 0, reason: 'NoAnswer', outcomeUnknown: true });
    expect(seen).toEqual(['POST <error>']);
  });

  it('tells the same of an answer that breaks off', async () => {
    server.fault = (_request, response) => {
      response.writeHead(200, { 'Content-Length': '1000' });
      response.write('{"metadata"');
      setImmediate(() => response.destroy());
      return true;
    };
    expect(await failure(client.mergePatch(widgets, a, {}))).toMatchObject({ outcomeUnknown: true });
  });

  it('sends again what was lost with an idle connection that the server has closed, but for a create', async () => {
    const writer = widgetWriter(server.store);
    writer.create('a');
    await client.get(widgets, a);
    let lost = 0;
    server.fault = (_request, response) => {
      if (lost++ > 0) return false;
      response.socket?.resetAndDestroy();
      return true;
    };
    expect((await client.mergePatch(widgets, a, { spec: { size: 5 } })).spec.size).toBe(5);
    lost = 0;
    const error = await failure(client.create(widgets, 'ci', { metadata: { name: 'b' }, spec: { size: 1 } }));
    expect(error).toMatchObject({ reason: 'NoAnswer', outcomeUnknown: true });
  });

  it.each(['head', 'body'])('gives up on a %s that does not come', async (part) => {
    server.fault = (_request, response) => {
      if (part === 'body') {
        response.writeHead(200);
        response.write('{');
      }
      return true;
    };
    const error = await failure(client.get(widgets, a, { timeoutMs: 50 }));
    expect(error).toMatchObject({ status: 0, reason: 'Timeout' });
  });

  it('gives up the idle connections too when one has died', async () => {
    widgetWriter(server.store).create('a');
    await Promise.all([1, 2, 3].map(() => client.get(widgets, a)));
    expect(server.sockets.size).toBe(3);
    server.fault = () => true;
    expect(await failure(client.get(widgets, a, { timeoutMs: 50 }))).toMatchObject({ reason: 'Timeout' });
    await vi.waitFor(() => expect(server.sockets.size).toBe(0), { timeout: 5000 });
  });

  it('has patience with a body that comes slowly', async () => {
    server.fault = (_request, response) => {
      const text = JSON.stringify(widgetWriter(server.store).create('a'));
      response.writeHead(200);
      for (let part = 0; part < 8; part++) {
        const end = part === 7 ? text.length : (part + 1) * 10;
        setTimeout(() => response.write(text.slice(part * 10, end)), part * 50);
      }
      setTimeout(() => response.end(), 400);
      return true;
    };
    expect((await client.get(widgets, a, { timeoutMs: 300 })).spec.size).toBe(1);
  });

  it('stops as soon as the caller does, with the reason of the caller', async () => {
    server.fault = () => true;
    const stop = new AbortController();
    const got = client.get(widgets, a, { signal: stop.signal });
    stop.abort(new Error('enough'));
    await expect(got).rejects.toThrow('enough');
  });

  it('refuses an answer that is too large, or not what the API promises', async () => {
    server.fault = (_request, response) =>
      answer(response, 200, { metadata: {}, spec: { size: 'secret-size' } });
    const wrong = await failure(client.get(widgets, a));
    expect(wrong.reason).toBe('InvalidResponse');
    expect(wrong.message).not.toContain('secret-size');
    server.fault = (_request, response) => answer(response, 200, { padding: 'x'.repeat(5 * 2 ** 20) });
    expect((await failure(client.get(widgets, a))).reason).toBe('InvalidResponse');
  });

  it('never shows the token', async () => {
    server.fault = (_request, response) => refuse(response, 401, 'Unauthorized');
    const error = await failure(client.get(widgets, a));
    expect(JSON.stringify(error) + (error.stack ?? '') + String(error.cause)).not.toContain('secret-token');
  });
});
