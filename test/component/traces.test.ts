import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { JobTraces } from '../../controller/cli/job-traces.ts';
import { systemClock } from '../../controller/clock.ts';
import { instanceName } from '../../controller/reconcile/names.ts';
import type { CommandEnd, Observer, StatusChange } from '../../controller/reconcile/ports.ts';
import { traceIdOf } from '../../controller/telemetry/trace-ids.ts';
import { startTraces, type Traces } from '../../controller/telemetry/traces.ts';
import { run, type CommandResult } from '../support/command.ts';
import type { GuestScript } from '../support/incus-sim/guest-script.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { OtlpCollector, type ReceivedSpan } from '../support/otlp-collector.ts';
import { SimBench } from '../support/sim-bench.ts';
import { SshSim } from '../support/ssh-sim.ts';

/* Jobs on a simulated Incus, and a collector that says what it was sent of them. */

let dir: string;
let collector: OtlpCollector;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cijob-traces-'));
  collector = await OtlpCollector.start();
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await collector.stop();
  await rm(dir, { recursive: true });
});

/** One line a span, below its parent. */
function tree(spans: readonly ReceivedSpan[], parent?: string, depth = 0): string[] {
  return spans
    .filter(({ parentSpanId }) => parentSpanId === parent)
    .sort((a, b) => a.start - b.start || a.end - b.end)
    .flatMap((span) => [
      `${'  '.repeat(depth)}${span.name}${span.error === undefined ? '' : ` (${span.error})`}`,
      ...tree(spans, span.spanId, depth + 1),
    ]);
}

/** Spans by their ids. Fails if two that have the same id are not the same. */
function once(spans: readonly ReceivedSpan[]): ReceivedSpan[] {
  const byId = new Map<string, ReceivedSpan>();
  for (const span of spans) {
    expect(byId.get(span.spanId) ?? span).toEqual(span);
    byId.set(span.spanId, span);
  }
  return [...byId.values()];
}

describe('cijob run', () => {
  let incus: IncusSim;
  let machine: SshSim;
  beforeEach(async () => {
    incus = new IncusSim({ guest: { job: { exitCode: 3 } } });
    incus.store.addImage('pikaci/dev', 'container');
    machine = await SshSim.start(incus);
    await writeFile(join(dir, 'key'), machine.privateKey);
  });
  afterEach(async () => {
    await machine.close();
    incus.close();
  });

  async function cijobRun(
    environment: Record<string, string>,
    annotations: Record<string, string> = {},
  ): Promise<CommandResult> {
    const meta = { apiVersion: 'ci.pikaci.dev/v1alpha1', metadata: { name: 'build-1' } };
    const { port, hostKey, socketPath } = machine;
    const ssh = { address: '127.0.0.1', port, user: 'cijob', hostKeys: [hostKey], socketPath };
    const privateKeySecretRef = { name: 'ssh', key: 'key' };
    const items = [
      {
        ...meta,
        kind: 'CiJob',
        metadata: { name: 'build', annotations },
        spec: {
          command: 'deploy --password secret-command',
          env: [{ name: 'TOKEN', value: 'secret-value' }],
          instance: { type: 'Container', image: 'pikaci/dev' },
        },
      },
      {
        ...meta,
        kind: 'IncusHost',
        spec: {
          connection: { ssh: { ...ssh, privateKeySecretRef } },
          capacity: { instances: 1 },
          allowedNamespaces: { all: true },
        },
      },
    ];
    const file = join(dir, 'all.yaml');
    await writeFile(file, items.map((item) => JSON.stringify(item)).join('\n---\n'));
    const program = join(import.meta.dirname, '../../controller/main.ts');
    return run(process.execPath, [program, 'run', '-f', file, '-i', join(dir, 'key')], { env: environment });
  }

  test('sends one trace a job: its life, the phases, the commands, and no secret', async () => {
    const { code, stderr } = await cijobRun({
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
      OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer%20secret-header',
      OTEL_SERVICE_NAME: 'ci',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test',
    });
    expect(code).toBe(3);
    expect(tree(collector.spans)).toEqual([
      'CiJob (Test: NonZeroExitCode)',
      '  Provisioning',
      '    incus resolve',
      '    incus create',
      '  Running',
      '    incus launch',
      '  Collecting (NonZeroExitCode)',
      '    incus collect',
      '  incus stop',
      '  incus delete',
    ]);
    const root = collector.only('CiJob');
    expect(stderr).toContain(`default/build: trace ${root.traceId}\n`);
    expect(new Set(collector.spans.map(({ traceId }) => traceId))).toEqual(new Set([root.traceId]));
    expect(root.traceId).toBe(traceIdOf(String(root.attributes['cijob.uid'])));
    expect(root.resource).toMatchObject({
      'service.name': 'ci',
      'service.version': expect.any(String) as string,
      'deployment.environment.name': 'test',
    });
    expect(collector.only('incus create')).toMatchObject({
      kind: 3,
      attributes: { 'cijob.host': 'build-1', 'server.address': '127.0.0.1', 'cijob.incus.outcome': 'done' },
    });
    for (const span of collector.spans) expect(span.end).toBeGreaterThanOrEqual(span.start);
    expect(collector.headers[0]).toMatchObject({ authorization: 'Bearer secret-header' });
    expect(collector.bodies.join('\n')).not.toMatch(/secret|password|TOKEN|deploy --/);
  });

  test("continues the trace of the job's creator", async () => {
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    const traceparent = `00-${traceId}-00f067aa0ba902b7-01`;
    const environment = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint };
    await cijobRun(environment, { 'ci.pikaci.dev/traceparent': traceparent });
    expect(collector.only('CiJob')).toMatchObject({ traceId, parentSpanId: '00f067aa0ba902b7' });
    expect(new Set(collector.spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
    expect(tree(collector.spans, '00f067aa0ba902b7')).toHaveLength(collector.spans.length);
  });

  test('sends nothing, and says nothing of it, when no collector is named', async () => {
    const { code, stderr } = await cijobRun({ OTEL_SERVICE_NAME: 'ci' });
    expect(code).toBe(3);
    expect(stderr).not.toContain('trace');
    expect(collector.bodies).toEqual([]);
  });

  test.each(['refuse', 'hang'] as const)(
    'comes to the same end with a collector that would %s, and says so once',
    async (mode) => {
      collector.mode = mode;
      const { code, stderr } = await cijobRun({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint });
      expect(code).toBe(3);
      expect(collector.bodies.length).toBeGreaterThan(0);
      expect(stderr.match(/traces are lost/g)).toHaveLength(1);
    },
  );
});

describe('a controller', () => {
  const first = instanceName('uid-job', 1);
  const all: Traces[] = [];
  afterEach(() => Promise.all(all.splice(0).map((traces) => traces.close())));

  /** What controller/cli/controller.ts does with traces; `dies` takes every span with it. */
  async function observers(dies = false): Promise<{ observe: () => Observer; dropped: () => number }> {
    vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', collector.endpoint);
    let dropped = 0;
    const start = async () => {
      const traces = await startTraces({
        clock: systemClock,
        version: 'test',
        onDropped: (spans) => (dropped += spans),
        onTrouble: () => undefined,
      });
      all.push(traces!);
      return traces!;
    };
    const born = [await start(), await start()];
    const mute: Traces = { ...born[0]!, trace: (parent) => born[0]!.trace(parent), tell: () => undefined };
    let count = 0;
    const observe = () => {
      const mine = dies && count === 0 ? mute : born[Math.min(count, 1)]!;
      count += 1;
      const jobTraces = new JobTraces({ traces: mine, addressOf: () => undefined });
      return {
        status: (change: StatusChange) => jobTraces.status(change),
        command: (end: CommandEnd) => void jobTraces.command(end, systemClock.now()),
      };
    };
    return { observe, dropped: () => dropped };
  }

  async function flush(): Promise<void> {
    await Promise.all(all.splice(0).map((traces) => traces.close()));
  }

  test.each([
    ['and what the first one had to tell was sent', false],
    ['and what the first one had to tell was lost with it', true],
  ])('that is killed while the command runs, %s: the next one completes the trace', async (_what, dies) => {
    const { observe } = await observers(dies);
    const guest: GuestScript = { job: { runMs: 300 } };
    const bench = await SimBench.start(join(dir, 'incus.sock'), guest, 4, { observe });
    try {
      bench.create('job');
      await expect.poll(() => bench.sim.runs(first), { interval: 5, timeout: 10_000 }).toBe(1);
      await bench.replaceController();
      await bench.settled();
      await flush();
    } finally {
      await bench.close();
    }
    const spans = once(collector.spans);
    expect(new Set(spans.map(({ traceId }) => traceId))).toEqual(new Set([traceIdOf('uid-job')]));
    const phases = tree(spans).filter((line) => /^( {2})?[A-Z]/.test(line));
    expect(phases).toEqual(['CiJob', '  Pending', '  Provisioning', '  Running', '  Collecting']);
    // Nobody is left without a parent.
    expect(tree(spans)).toHaveLength(spans.length);
    expect(tree(spans).filter((line) => line.includes('incus create'))).toHaveLength(dies ? 0 : 1);
  });

  test('that loses an attempt to the infrastructure tells of both in one trace', async () => {
    const { observe } = await observers();
    const guest = (name: string): GuestScript =>
      name === first ? { job: { runMs: 3, then: 'poweroff' } } : { job: { runMs: 3 } };
    const bench = await SimBench.start(join(dir, 'incus.sock'), guest, 4, { observe });
    try {
      bench.create('job');
      await bench.settled();
      await flush();
    } finally {
      await bench.close();
    }
    const runs = collector.spans.filter(({ name }) => name === 'Running');
    // Where the exec is seen to end before its instance, it is launched once more, and runs once more.
    expect(new Set(runs.map(({ attributes }) => attributes['cijob.attempt']))).toEqual(new Set([1, 2]));
    expect(tree(collector.spans)).toHaveLength(collector.spans.length);
    expect(tree(collector.spans)[0]).toBe('CiJob');
    expect(collector.spans.filter(({ error }) => error !== undefined).length).toBeGreaterThan(0);
  });

  test.each(['refuse', 'hang'] as const)(
    'runs its jobs while the collector would %s, and counts what is lost',
    async (mode) => {
      collector.mode = mode;
      const { observe, dropped } = await observers();
      const bench = await SimBench.start(join(dir, 'incus.sock'), { job: { runMs: 3 } }, 4, { observe });
      try {
        for (let count = 0; count < 20; count += 1) bench.create(`job-${count}`);
        await bench.settled();
        await flush();
      } finally {
        await bench.close();
      }
      await expect.poll(dropped, { timeout: 10_000 }).toBeGreaterThanOrEqual(20 * 4);
      expect(collector.spans).toEqual([]);
    },
  );
});
