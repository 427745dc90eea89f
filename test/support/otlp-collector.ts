import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { z } from 'zod';

const value = z.object({
  stringValue: z.string().optional(),
  intValue: z.union([z.number(), z.string()]).optional(),
  doubleValue: z.number().optional(),
});
const attributes = z.array(z.object({ key: z.string(), value }));
const payload = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes }),
      scopeSpans: z.array(
        z.object({
          spans: z.array(
            z.object({
              traceId: z.string().regex(/^[0-9a-f]{32}$/),
              spanId: z.string().regex(/^[0-9a-f]{16}$/),
              parentSpanId: z.string().optional(),
              name: z.string(),
              kind: z.number(),
              startTimeUnixNano: z.string(),
              endTimeUnixNano: z.string(),
              attributes,
              status: z.object({ code: z.number(), message: z.string().optional() }),
            }),
          ),
        }),
      ),
    }),
  ),
});

/** A span as it came. */
export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  name: string;
  /** 1 internal, 3 client. */
  kind: number;
  /** Milliseconds since the epoch. */
  start: number;
  end: number;
  attributes: Record<string, string | number | undefined>;
  resource: Record<string, string | number | undefined>;
  error: string | undefined;
}

/** An OpenTelemetry collector that takes OTLP over HTTP as JSON, and remembers all that it was sent. */
export class OtlpCollector {
  readonly spans: ReceivedSpan[] = [];
  /** Every request's body, as it came. */
  readonly bodies: string[] = [];
  readonly headers: Record<string, unknown>[] = [];
  /** Whether it takes spans, refuses them, or takes the request and never answers. */
  mode: 'take' | 'refuse' | 'hang' = 'take';
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8');
      request.on('data', (chunk: string) => (body += chunk));
      request.on('end', () => {
        this.headers.push(request.headers);
        this.#answer(request.url ?? '', body, response);
      });
    });
  }

  static async start(): Promise<OtlpCollector> {
    const collector = new OtlpCollector();
    await new Promise<void>((resolve) => collector.#server.listen(0, '127.0.0.1', resolve));
    return collector;
  }

  /** What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The span of that name; an error unless there is one and no other. */
  only(name: string): ReceivedSpan {
    const [span, ...others] = this.spans.filter((one) => one.name === name);
    if (!span || others.length > 0) throw new Error(`${name}: ${others.length + (span ? 1 : 0)} spans`);
    return span;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(url: string, body: string, response: ServerResponse): void {
    this.bodies.push(body);
    if (this.mode === 'hang') return;
    if (this.mode === 'refuse' || url !== '/v1/traces') {
      response.writeHead(500).end();
      return;
    }
    for (const { resource, scopeSpans } of payload.parse(JSON.parse(body)).resourceSpans) {
      for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
        this.spans.push({
          traceId: span.traceId,
          spanId: span.spanId,
          parentSpanId: span.parentSpanId,
          name: span.name,
          kind: span.kind,
          start: Number(BigInt(span.startTimeUnixNano) / 1_000_000n),
          end: Number(BigInt(span.endTimeUnixNano) / 1_000_000n),
          attributes: plain(span.attributes),
          resource: plain(resource.attributes),
          error: span.status.code === 2 ? (span.status.message ?? '') : undefined,
        });
      }
    }
    response.writeHead(200, { 'Content-Type': 'application/json' }).end('{}');
  }
}

function plain(list: z.infer<typeof attributes>): Record<string, string | number | undefined> {
  return Object.fromEntries(
    list.map(({ key, value: { stringValue, intValue, doubleValue } }) => [
      key,
      stringValue ?? (intValue === undefined ? doubleValue : Number(intValue)),
    ]),
  );
}
