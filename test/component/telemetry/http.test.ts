import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { parseAddress, serveTelemetry, type TelemetryServer } from '../../../controller/telemetry/http.ts';
import { createMetrics } from '../../../controller/telemetry/metrics.ts';

describe('the telemetry server', () => {
  let server: TelemetryServer | undefined;
  afterEach(() => server?.close());

  const state: { alive?: string; ready?: string } = {};
  async function serve(metrics?: () => Promise<string>): Promise<string> {
    const { registry } = createMetrics({ version: '1.2.3' });
    server = await serveTelemetry({
      address: '127.0.0.1:0',
      alive: () => state.alive,
      ready: () => state.ready,
      metrics: { contentType: registry.contentType, metrics: metrics ?? (() => registry.metrics()) },
    });
    return `http://127.0.0.1:${server.port}`;
  }

  it('says whether the process is alive and ready, and why not', async () => {
    const url = await serve();
    state.ready = 'not yet synced';
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    const ready = await fetch(`${url}/readyz`);
    expect([ready.status, await ready.text()]).toEqual([503, 'not yet synced\n']);
    delete state.ready;
    expect((await fetch(`${url}/readyz?verbose`)).status).toBe(200);
  });

  it('serves the metrics in the text format of Prometheus', async () => {
    const response = await fetch(`${await serve()}/metrics`);
    expect(response.headers.get('content-type')).toContain('text/plain; version=0.0.4');
    expect(await response.text()).toContain('cijob_build_info{version="1.2.3"} 1');
  });

  it('survives metrics that cannot be read', async () => {
    const url = await serve(() => Promise.reject(new Error('secret detail')));
    const response = await fetch(`${url}/metrics`);
    expect([response.status, await response.text()]).toEqual([500, 'failed\n']);
  });

  it('knows nothing else, and takes nothing', async () => {
    const url = await serve();
    expect((await fetch(`${url}/`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`, { method: 'POST', body: 'x' })).status).toBe(405);
  });

  it('refuses a request with a head that is too large', async () => {
    const url = await serve();
    const response = await fetch(`${url}/metrics`, { headers: { padding: 'x'.repeat(10_000) } });
    expect(response.status).toBe(431);
  });

  it('closes with idle connections and half a request open', async () => {
    const url = await serve();
    await fetch(`${url}/healthz`);
    const half = connect(server!.port, '127.0.0.1');
    const gone = new Promise((resolve) => half.once('close', resolve));
    half.on('error', () => undefined);
    await new Promise((resolve) => half.once('connect', resolve));
    half.write('GET /metrics HTTP/1.1\r\n');
    await server!.close();
    server = undefined;
    await gone;
    await expect(fetch(`${url}/healthz`)).rejects.toThrow();
  });

  it('fails to start on an address in use', async () => {
    await serve();
    const metrics = { contentType: '', metrics: () => Promise.resolve('') };
    const address = `127.0.0.1:${server!.port}`;
    await expect(
      serveTelemetry({ address, alive: () => undefined, ready: () => undefined, metrics }),
    ).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });

  it.each([
    [':8080', { port: 8080 }],
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['[::1]:9', { host: '::1', port: 9 }],
  ])('reads the address %s', (address, parsed) => {
    expect(parseAddress(address)).toEqual(parsed);
  });

  it.each(['', '8080', ':70000', '::1:80', 'a:b', 'http://a:80'])('refuses the address "%s"', (address) => {
    expect(() => parseAddress(address)).toThrow(TypeError);
  });
});
