import { describe, expect, test } from 'vitest';
import { CiJob } from '../../../controller/api/cijob.ts';
import { excerptBytes, logTailBytes } from '../../../controller/api/cijob-status.ts';
import { apiVersion, instanceCleanupFinalizer } from '../../../controller/api/meta.ts';
import type { GuestFile } from '../../../controller/incus/client.ts';
import type { Command } from '../../../controller/incus/commands.ts';
import type { InstanceView } from '../../../controller/incus/inventory.ts';
import type { CommandOutcome } from '../../../controller/incus/outcome.ts';
import { masked, maskOf, tailBytes } from '../../../controller/reconcile/masking.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { defaultPatience } from '../../../controller/reconcile/observed.ts';
import type { HostsPort } from '../../../controller/reconcile/ports.ts';
import { Reconciler } from '../../../controller/reconcile/reconciler.ts';
import { verdictOf } from '../../../controller/reconcile/verdict.ts';
import { MemoryStore } from '../../../controller/standalone/memory-store.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const value = 'correct-horse-battery';
const file = (text: string | Buffer, size = Buffer.byteLength(text)): GuestFile => ({
  kind: 'file',
  size,
  bytes: Buffer.from(text),
});
const missing: GuestFile = { kind: 'missing' };
const resultFile = (fields: object) =>
  file(JSON.stringify({ schema_version: 1, status: 'failed', exit_code: 3, ...fields }));
const collected = (result: GuestFile, log: GuestFile): CommandOutcome => ({
  kind: 'collected',
  collected: { result, log },
});

/** What a status would say of a guest's files, once they are masked. */
function said(result: GuestFile, log: GuestFile, secrets: (string | Buffer)[] | undefined) {
  const outcome = masked(
    collected(result, log),
    secrets && maskOf(secrets.map((secret) => Buffer.from(secret))),
  );
  if (outcome.kind !== 'collected') throw new Error(outcome.kind);
  return verdictOf({ spec: { timeoutSeconds: 60 } } as CiJob, outcome.collected);
}
const excerptOf = (log: string | Buffer, secrets: (string | Buffer)[]) =>
  said(resultFile({}), file(log), secrets)?.log?.excerpt;

describe('the value of a Secret', () => {
  test('is masked wherever it stands in the end of the log', () => {
    expect(excerptOf(`${value}: token=${value}\n${value}`, [value])).toBe('***: token=***\n***');
  });

  test('is masked without the line feed that files end with, and line by line', () => {
    expect(excerptOf(`<${value}>`, [`${value}\n`])).toBe('<***>');
    expect(excerptOf('  first-line\n  second-line\n', ['first-line\r\nsecond-line\n'])).toBe(
      '  ***\n  ***\n',
    );
  });

  test('that is no text is masked as the bytes it is, and as it is shown', () => {
    const bytes = Buffer.from([0xff, 0x61, 0x62, 0x63, 0xc3, 0x28, 0xa0]);
    const log = Buffer.concat([Buffer.from('<'), bytes, Buffer.from(`> <${bytes.toString('utf8')}>`)]);
    expect(excerptOf(log, [bytes])).toBe('<***> <***>');
  });

  test('is left where it has less than four bytes', () => {
    expect(excerptOf('abc abcd', ['abc'])).toBe('abc abcd');
    expect(excerptOf('abc abcd', ['abcd'])).toBe('abc ***');
  });

  test('is masked whole where another one is part of it or overlaps with it', () => {
    expect(excerptOf('<secret-and-more>', ['secret', 'secret-and-more'])).toBe('<***>');
    expect(excerptOf('<abcdefghi>', ['abcdef', 'defghi'])).toBe('<***>');
  });

  test.each([0, 1, 5, value.length - 1])(
    'is masked where the beginning of the excerpt cuts it, %i bytes from its end',
    (kept) => {
      const log = `${'y'.repeat(9000)}${value}${'x'.repeat(excerptBytes - kept)}`;
      const tail = log.slice(-tailBytes(maskOf([Buffer.from(value)])));
      const excerpt = said(resultFile({}), file(tail, log.length), [value])?.log?.excerpt;
      const shown = `${'y'.repeat(9000)}***${'x'.repeat(excerptBytes - kept)}`;
      expect(excerpt === shown.slice(-excerptBytes)).toBe(true);
    },
  );

  test('leaves no half of itself where much of the excerpt is masked', () => {
    const log = `${value}${`${value}\n`.repeat(1000)}`;
    const tail = log.slice(-tailBytes(maskOf([Buffer.from(value)])));
    expect(said(resultFile({}), file(tail, log.length), [value])?.log?.excerpt).toMatch(/^\**\n(\*\*\*\n)*$/);
  });

  test('is masked in the names of files that are not among the artifacts', () => {
    const noted = (message: string, secrets?: string[]) => {
      const notes = [{ reason: 'NotRegular', message }];
      const artifacts = { files: 0, bytes: 0, skipped: 1, truncated: false, notes };
      const outcome: CommandOutcome = {
        kind: 'collected',
        collected: { result: missing, log: missing, artifacts },
      };
      const shown = masked(outcome, secrets && maskOf(secrets.map((secret) => Buffer.from(secret))));
      return shown.kind === 'collected' ? shown.collected.artifacts?.notes[0] : undefined;
    };
    expect(noted(`left out: ${value}.txt`, [value])).toEqual({
      ...{ reason: 'NotRegular', message: 'left out: ***.txt' },
    });
    expect(noted(`left out: ${value}.txt`)?.message).not.toContain(value);
  });

  test('is masked in what a result says, and changes nothing that decides', () => {
    expect(said(resultFile({ message: `login ${value} failed` }), missing, [value])).toMatchObject({
      class: 'Test',
      exitCode: 3,
      message: 'login *** failed',
    });
    expect(said(resultFile({ bootstrap_error: `no ${value}` }), missing, [value])).toMatchObject({
      reason: 'BootstrapFailed',
      message: 'no ***',
    });
    const words = ['failed', 'schema_version', 'exit_code', 'message', '"status":"failed"'];
    expect(said(resultFile({ message: 'it failed' }), missing, words)).toMatchObject({
      class: 'Test',
      exitCode: 3,
      message: 'it ***',
    });
  });

  test('is masked in what a host answers', () => {
    const answer: CommandOutcome = { kind: 'failed', message: `bad variable TOKEN=${value}` };
    expect(masked(answer, maskOf([Buffer.from(value)]))).toEqual({
      kind: 'failed',
      message: 'bad variable TOKEN=***',
    });
  });
});

test.each([
  ['failed', resultFile({ message: value }), { class: 'Test', exitCode: 3 }],
  ['passed', resultFile({ status: 'passed', exit_code: 0 }), { passed: true }],
  ['could not begin', resultFile({ bootstrap_error: value }), { reason: 'BootstrapFailed' }],
  ['is garbled', file(`{"${value}`), { reason: 'ResultInvalid' }],
  ['is too large', file(value, 1e9), { reason: 'ResultInvalid' }],
])('where the values are not known, nothing is shown of a job that %s', (_what, result, outcome) => {
  const verdict = said(result, file(`${value}\n[pikaci] the log is cut here`, 99_999), undefined);
  expect(verdict).toMatchObject({ ...outcome, log: { bytes: 99_999, truncated: true } });
  expect(JSON.stringify(verdict)).not.toContain(value);
});

describe('a controller', () => {
  const instance = instanceName('uid', 1);

  /** A controller that finds a job whose instance has stopped, which another one launched. */
  async function takeOver(env: object[], secret: string | undefined) {
    const commands: Command[] = [];
    const asked: string[] = [];
    const woken = Promise.withResolvers<undefined>();
    const view: InstanceView = {
      name: instance,
      type: 'container',
      status: 'Stopped',
      everStarted: true,
      startedAt: 1,
      announcedReady: false,
      labels: { uid: 'uid', attempt: '1', controller: 'us' },
      devices: {},
      settings: {},
      operations: new Set(),
    };
    const hosts: HostsPort = {
      get: () => ({
        spec: { storagePool: 'default' },
        state: { kind: 'up', since: 0 },
        inventory: {
          get: () => view,
          isRunning: () => false,
          isBusy: () => false,
          ended: () => undefined,
        },
      }),
      instancesOf: () => [{ host: 'h', instance: view }],
      perform: (_host, command) => {
        commands.push(command);
        return Promise.resolve(collected(resultFile({ message: value }), file(`the ${value}\n`)));
      },
      admit: () => ({ kind: 'admitted', host: 'h' }),
      occupy: () => undefined,
      withdraw: () => undefined,
      release: () => undefined,
    };
    const job = CiJob.parse({
      apiVersion,
      kind: 'CiJob',
      metadata: {
        name: 'job',
        namespace: 'ci',
        uid: 'uid',
        creationTimestamp: '2026-01-01T00:00:00Z',
        resourceVersion: '1',
        finalizers: [instanceCleanupFinalizer],
      },
      spec: { command: 'true', env, instance: { type: 'Container', image: 'image' } },
      status: { phase: 'Running', host: 'h', attempt: 1, instance: { name: instance } },
    });
    const store = new MemoryStore(() => undefined);
    let current = job;
    const told: string[] = [];
    const reconciler = new Reconciler({
      store: Object.assign(store, {
        get: () => current,
        writeStatus: (_job: CiJob, status: CiJob['status']) => {
          current = { ...current, status };
          return Promise.resolve(current);
        },
        secret: (_namespace: string, name: string) => {
          asked.push(name);
          return Promise.resolve(secret === undefined ? undefined : Buffer.from(secret));
        },
      }),
      hosts,
      clock: new ManualClock(),
      controllerId: 'us',
      patience: defaultPatience,
      namespaceLabels: () => ({}),
      wake: () => woken.resolve(undefined),
      observer: {
        status: () => undefined,
        command: (...args) => told.push(JSON.stringify(args)),
      },
    });
    await reconciler.reconcile('ci/job', 'first');
    await woken.promise;
    await reconciler.reconcile('ci/job', 'second');
    return { status: current.status, commands: commands.slice(0, 1), asked, told };
  }

  const fromSecret = [{ name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'token', key: 'token' } } }];

  test('that did not launch the job reads its Secrets before it shows anything of the guest', async () => {
    const { status, commands, asked, told } = await takeOver(fromSecret, value);
    expect(asked).toEqual(['token']);
    expect(commands).toEqual([
      {
        verb: 'collect',
        instance,
        artifacts: [],
        resultOnly: true,
        logBytes: logTailBytes + value.length - 1,
      },
    ]);
    expect(status?.failure).toMatchObject({ class: 'Test', message: '***', excerpt: 'the ***\n' });
    expect(told.join('')).not.toContain(value);
  });

  test('shows nothing of the guest when they are not there any more, and decides as ever', async () => {
    const { status, commands } = await takeOver(fromSecret, undefined);
    expect(commands).toEqual([{ verb: 'collect', instance, artifacts: [], resultOnly: true }]);
    expect(status).toMatchObject({ phase: 'Failed', exitCode: 3, failure: { class: 'Test' } });
    expect(status?.failure?.excerpt).toBeUndefined();
    expect(JSON.stringify(status)).not.toContain(value);
  });

  test('asks for no Secret and for no more of the log where a job has none: plain values are no secrets', async () => {
    const { status, commands, asked } = await takeOver([{ name: 'TOKEN', value }], undefined);
    expect(asked).toEqual([]);
    expect(commands).toEqual([{ verb: 'collect', instance, artifacts: [], resultOnly: true }]);
    expect(status?.failure?.excerpt).toBe(`the ${value}\n`);
  });
});
