import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../controller/clock.ts';
import { expose } from '../../../controller/telemetry/exposition.ts';
import { parseAddress, serveTelemetry, type TelemetryServer } from '../../../controller/telemetry/http.ts';
import { createMetrics, type Metrics } from '../../../controller/telemetry/metrics.ts';

describe('the telemetry server', () => {
  let server: TelemetryServer | undefined;
  afterEach(() => server?.close());

  const state: { alive?: string; ready?: string } = {};
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  let ours: Metrics;
  async function serve(metrics?: () => Promise<never>): Promise<string> {
    ours = createMetrics({ version: '1.2.3' });
    server = await serveTelemetry({
      address: '127.0.0.1:0',
      clock: systemClock,
      alive: () => state.alive,
      ready: () => state.ready,
      metrics: (accept) => (metrics ? metrics() : expose(ours.registry, accept)),
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

  describe('asked for OpenMetrics', () => {
    const prometheus =
      'application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1';
    const get = async (url: string, accept?: string) => {
      const response = await fetch(`${url}/metrics`, accept === undefined ? {} : { headers: { accept } });
      return { type: response.headers.get('content-type') ?? '', text: await response.text() };
    };
    /** Name and labels of every series, but for those of timers and sockets, which come and go. */
    const series = (text: string) =>
      text
        .split('\n')
        .filter((line) => line !== '' && !/^(#|nodejs_active_|nodejs_gc_)/.test(line))
        .map((line) => /^[^ {]+(\{[^}]*\})?/.exec(line)?.[0])
        .sort();

    it.each([prometheus, 'application/openmetrics-text', 'text/plain;q=0.5, Application/OpenMetrics-Text'])(
      'answers with it: %s',
      async (accept) => {
        const { type, text } = await get(await serve(), accept);
        expect(type).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
        expect(text).toMatch(/\n# EOF\n$/);
        expect(text).toContain('# TYPE cijob_retries counter\n');
      },
    );

    it.each([
      undefined,
      '*/*',
      'text/plain',
      'text/html,application/xhtml+xml;q=0.9,*/*;q=0.8',
      'application/openmetrics-text;q=0',
      'application/openmetrics-text;q=nonsense',
      'application/openmetrics-text;q=0.1,text/plain;q=0.9',
      ','.repeat(4000),
    ])('or not: %s', async (accept) => {
      const { type, text } = await get(await serve(), accept);
      expect(type).toBe('text/plain; version=0.0.4; charset=utf-8');
      expect(text).toContain('# TYPE cijob_retries_total counter\n');
      expect(text).not.toContain('# EOF');
    });

    it('shows the same series under the same names in both formats, also to scrapers that come at once', async () => {
      const url = await serve();
      ours.retries.increment({ reason: 'HostLost' });
      ours.runSeconds.observe({ lane: 'other' }, 4, traceId);
      const answers = await Promise.all(
        Array.from({ length: 40 }, (_, index) => get(url, index % 2 === 0 ? prometheus : 'text/plain')),
      );
      for (const [index, { type, text }] of answers.entries()) {
        expect(type.startsWith(index % 2 === 0 ? 'application/openmetrics-text' : 'text/plain')).toBe(true);
        expect(series(text)).toEqual(series(answers[0]!.text));
        expect(text.includes('trace_id')).toBe(index % 2 === 0);
      }
      expect(answers[1]!.text).toContain('cijob_retries_total{reason="HostLost"} 1\n');
      expect(answers[0]!.text).toContain('cijob_retries_total{reason="HostLost"} 1\n');
    });

    it('refers from a bucket to the newest trace that fell into it', async () => {
      const url = await serve();
      ours.runSeconds.observe({ lane: 'other' }, 4, 'f'.repeat(32));
      ours.runSeconds.observe({ lane: 'other' }, 4, traceId);
      ours.runSeconds.observe({ lane: 'other' }, 4.5, undefined);
      const { text } = await get(url, prometheus);
      const exemplars = text.split('\n').filter((line) => line.includes('trace_id'));
      expect(exemplars).toEqual([
        expect.stringMatching(
          /^cijob_run_seconds_bucket\{le="5",lane="other"\} 3 # \{trace_id="4bf92f3577b34da6a3ce929d0e0e4736"\} 4 \d+(\.\d+)?$/,
        ),
      ]);
    });
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

  it('answers probes while somebody holds more connections than it takes', async () => {
    const url = await serve();
    const held = await Promise.all(
      Array.from({ length: 150 }, async () => {
        const socket = connect(server!.port, '127.0.0.1');
        socket.on('error', () => undefined);
        await once(socket, 'connect');
        // One that has asked before is not taken for one that never asks.
        socket.resume().write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
        return socket;
      }),
    );
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    for (const socket of held) socket.destroy();
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
    const metrics = () => Promise.resolve({ contentType: '', body: '' });
    const address = `127.0.0.1:${server!.port}`;
    await expect(
      serveTelemetry({
        address,
        clock: systemClock,
        alive: () => undefined,
        ready: () => undefined,
        metrics,
      }),
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
