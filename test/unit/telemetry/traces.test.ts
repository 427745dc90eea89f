import { ROOT_CONTEXT, SpanKind } from '@opentelemetry/api';
import { SamplingDecision, type ReadableSpan, type SpanExporter } from '@opentelemetry/sdk-trace';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { BoundedSpanProcessor } from '../../../controller/telemetry/bounded-span-processor.ts';
import { samplerOf } from '../../../controller/telemetry/sampler.ts';
import { parseTraceparent, traceIdOf } from '../../../controller/telemetry/trace-ids.ts';
import { startTraces, type Traces } from '../../../controller/telemetry/traces.ts';
import { run } from '../../support/command.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const troubles: string[] = [];
beforeEach(() => {
  troubles.length = 0;
  for (const name of Object.keys(process.env)) if (name.startsWith('OTEL_')) vi.stubEnv(name, undefined);
});
afterEach(() => vi.unstubAllEnvs());

function start(environment: Record<string, string>): Promise<Traces | undefined> {
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  return startTraces({
    clock: new ManualClock(),
    version: '1.2.3',
    onDropped: () => undefined,
    onTrouble: (why) => troubles.push(why),
  });
}

describe('tracing', () => {
  test.each<[string, Record<string, string>]>([
    ['no endpoint', {}],
    ['an empty endpoint', { OTEL_EXPORTER_OTLP_ENDPOINT: ' ' }],
    ['the SDK disabled', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9', OTEL_SDK_DISABLED: 'True' }],
    ['no exporter', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9', OTEL_TRACES_EXPORTER: 'none' }],
  ])('is off with %s, without a word', async (_what, environment) => {
    expect(await start(environment)).toBeUndefined();
    expect(troubles).toEqual([]);
  });

  test.each(['collector:4318', 'nonsense', 'unix:/run/otel.sock'])(
    'is off, and says why, with the endpoint %s',
    async (endpoint) => {
      expect(await start({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint })).toBeUndefined();
      expect(troubles).toMatchObject([expect.stringContaining('endpoint')]);
    },
  );

  test.each(['OTEL_EXPORTER_OTLP_ENDPOINT', 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'])(
    'is on with %s',
    async (name) => {
      const traces = await start({ [name]: 'http://127.0.0.1:9' });
      expect(traces).toBeDefined();
      await traces?.close();
    },
  );

  test('loads nothing of OpenTelemetry while it is off', { timeout: 60_000 }, async () => {
    // A process of its own, that says what it has loaded.
    const script = `
      import { registerHooks } from 'node:module';
      const loaded = [];
      registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) });
      const { startTraces } = await import('./controller/telemetry/traces.ts');
      await import('./controller/cli/job-traces.ts');
      await startTraces({ onTrouble: console.error });
      console.log(loaded.filter((url) => url.includes('opentelemetry')).length, loaded.length > 5);
    `;
    const off = await run(process.execPath, ['--input-type=module', '--eval', script]);
    expect(off.stdout).toBe('0 true\n');
    const on = await run(process.execPath, ['--input-type=module', '--eval', script], {
      env: { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' },
    });
    expect(on.stdout).toMatch(/^[1-9]\d* true\n$/);
  });

  test("takes the caller's word on whether a trace is recorded, unless told otherwise", async () => {
    const caller = (flags: string) =>
      parseTraceparent(`00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-${flags}`)!;
    const sampled = async (environment: Record<string, string>) => {
      const traces = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9', ...environment });
      const parents = [traceIdOf('a'), caller('01'), caller('00')];
      const decisions = parents.map((parent) => traces!.trace(parent).sampled);
      await traces!.close();
      return decisions;
    };
    expect(await sampled({})).toEqual([true, true, false]);
    expect(await sampled({ OTEL_TRACES_SAMPLER: 'always_on' })).toEqual([true, true, true]);
    expect(await sampled({ OTEL_TRACES_SAMPLER: 'always_off' })).toEqual([false, false, false]);
    expect(await sampled({ OTEL_TRACES_SAMPLER: 'parentbased_always_off' })).toEqual([false, true, false]);
  });
});

describe('the sampler', () => {
  const share = (name: string, argument: string | undefined, why: string[] = []) => {
    const sampler = samplerOf(name, argument, (trouble) => why.push(trouble));
    const taken = Array.from({ length: 1000 }, (_, index) => traceIdOf(`job-${index}`)).filter(
      (id) =>
        sampler.shouldSample(ROOT_CONTEXT, id, '', SpanKind.INTERNAL, {}, []).decision ===
        SamplingDecision.RECORD_AND_SAMPLED,
    );
    return taken.length / 1000;
  };

  test('takes the share of traces that it is told', () => {
    expect(share('traceidratio', '0')).toBe(0);
    expect(share('traceidratio', '0.25')).toBeCloseTo(0.25, 1);
    expect(share('traceidratio', undefined)).toBe(1);
  });

  test.each([
    ['traceidratio', '2'],
    ['traceidratio', 'half'],
    ['jaeger_remote', undefined],
  ])('takes all and says so when told %s %s', (name, argument) => {
    const why: string[] = [];
    const sampler = samplerOf(name, argument, (trouble) => why.push(trouble));
    expect(why).toHaveLength(1);
    expect(sampler.toString()).toMatch(/AlwaysOnSampler|\{1\}/);
  });
});

type Result = Parameters<Parameters<SpanExporter['export']>[1]>[0];

describe('spans on their way', () => {
  /** An exporter that answers when it is told to. */
  function slowExporter() {
    const calls: { spans: number; done: (why?: string) => void }[] = [];
    const exporter: SpanExporter = {
      export: (spans, callback) =>
        calls.push({
          spans: spans.length,
          done: (why) =>
            // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment, @typescript-eslint/no-unnecessary-type-assertion -- the enum is in a package of the exporter's
            callback((why === undefined ? { code: 0 } : { code: 1, error: new Error(why) }) as Result),
        }),
      shutdown: () => Promise.resolve(),
    };
    const dropped: [number, string][] = [];
    const processor = new BoundedSpanProcessor({
      exporter,
      maxSpans: 10,
      onDropped: (spans, why) => dropped.push([spans, why]),
    });
    return { calls, dropped, processor };
  }
  const span = { spanContext: () => ({ traceFlags: 1 }), resource: {} } as unknown as ReadableSpan;

  test('are so many and no more, those that are being sent included; the others are counted', async () => {
    const { calls, dropped, processor } = slowExporter();
    for (let count = 0; count < 7; count += 1) processor.onEnd(span);
    const flushed = processor.forceFlush();
    for (let count = 0; count < 5; count += 1) processor.onEnd(span);
    expect(calls.map(({ spans }) => spans)).toEqual([7]);
    expect(dropped).toEqual([
      [1, 'the collector is too slow'],
      [1, 'the collector is too slow'],
    ]);
    calls[0]?.done();
    await flushed;
    // There is room again.
    processor.onEnd(span);
    expect(dropped).toHaveLength(2);
    const closed = processor.shutdown();
    await vi.waitUntil(() => calls.length === 2);
    expect(calls[1]?.spans).toBe(4);
    calls[1]?.done();
    await closed;
  });

  test('that the collector refuses are counted, with its reason', async () => {
    const { calls, dropped, processor } = slowExporter();
    for (let count = 0; count < 3; count += 1) processor.onEnd(span);
    const flushed = processor.forceFlush().catch(() => undefined);
    calls[0]?.done('Internal Server Error');
    await flushed;
    expect(dropped).toEqual([[3, 'Internal Server Error']]);
  });
});
