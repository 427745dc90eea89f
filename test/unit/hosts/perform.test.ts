import PQueue from 'p-queue';
import { expect, it } from 'vitest';
import { systemClock } from '../../../controller/clock.ts';
import { perform, type Ground } from '../../../controller/hosts/perform.ts';
import { Watch } from '../../../controller/hosts/watch.ts';
import type { GuestFile, IncusClient } from '../../../controller/incus/client.ts';
import type { Variables } from '../../../controller/incus/environment-file.ts';
import { IncusError } from '../../../controller/incus/errors.ts';
import { FairQueue, sharesOf } from '../../../controller/incus/fair-queue.ts';
import { Inventory } from '../../../controller/incus/inventory.ts';
import type { Instance } from '../../../controller/incus/schemas.ts';

const instance = (status: string): Instance => ({
  name: 'one',
  type: 'container',
  status,
  config: {},
  devices: {},
  profiles: [],
  last_used_at: '2026-01-01T00:00:00Z',
});

it('a launch that is refused has the guest looked at, and its stop named, though no event told of it', async () => {
  const inventory = new Inventory();
  inventory.put('one', instance('Running'));
  const client = {
    start: () => Promise.reject(new IncusError('Refused', 'Instance is not running', 400)),
    instance: () => Promise.resolve(instance('Stopped')),
  } as unknown as IncusClient;
  const drifts: string[] = [];
  const events = {
    changed: () => undefined,
    lifecycle: () => undefined,
    drifted: (name: string, what: string) => drifts.push(`${name} ${what}`),
  };
  const ground = groundOf(
    client,
    inventory,
    new Watch(client, inventory, systemClock, events, () => undefined),
  );
  const launch = {
    verb: 'launch',
    instance: 'one',
    argv: [],
    parameters: {},
    environment: new Map(),
  } as const;
  expect(await perform(launch, ground)).toEqual({ kind: 'failed', message: 'Instance is not running' });
  expect(inventory.get('one')?.status).toBe('Stopped');
  expect(drifts).toEqual(['one Stopped']);
});

/** Launches a job that has a variable, in a guest that states `contract`. Returns the outcome, and what was sent. */
async function launched(contract: GuestFile) {
  const sent: unknown[] = [];
  const inventory = new Inventory();
  const client = {
    readFile: () => Promise.resolve(contract),
    putEnvironment: (_instance: string, variables: Variables) => {
      sent.push(variables);
      return Promise.resolve();
    },
    start: ({ body }: { body: { environment: object } }) => {
      sent.push(body.environment);
      return Promise.resolve({ id: 'op' });
    },
  } as unknown as IncusClient;
  const environment = new Map([['TOKEN', Buffer.from([0xff])]]);
  const watch = { began: () => undefined } as unknown as Watch;
  const launch = { verb: 'launch', instance: 'one', argv: [], parameters: {}, environment } as const;
  return { outcome: await perform(launch, groundOf(client, inventory, watch)), sent };
}
const stated = (text: string): GuestFile => ({ kind: 'file', size: text.length, bytes: Buffer.from(text) });

it('a launch puts the variables of the job into their file before it names it', async () => {
  const { outcome, sent } = await launched(stated('2\n'));
  expect(outcome).toEqual({ kind: 'launched', operation: 'op' });
  expect(sent).toEqual([
    new Map([['TOKEN', Buffer.from([0xff])]]),
    { PIKACI_INCUS_ENVIRONMENT_FILE: '/root/.pikaci-incus-environment' },
  ]);
});

it.each([
  ['states no contract', { kind: 'missing' } as const],
  ['keeps another contract', stated('1\n12\n')],
])(
  'a job with variables is not launched in an image that %s: its runner would drop them',
  async (_what, contract) => {
    const { outcome, sent } = await launched(contract);
    expect(outcome).toMatchObject({ kind: 'refused', reason: 'ImageOutdated' });
    expect(sent).toEqual([]);
  },
);

it.each(['readFile', 'putEnvironment'])(
  'a launch that is called off while the guest holds it up (%s) ends, and starts nothing',
  async (held) => {
    const sent: string[] = [];
    const never = (signal?: AbortSignal) =>
      new Promise<never>((_resolve, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason as Error));
      });
    const client = {
      readFile: (_instance: string, _path: string, _part: unknown, signal?: AbortSignal) =>
        held === 'readFile' ? never(signal) : Promise.resolve(stated('2')),
      putEnvironment: (_instance: string, _variables: Variables, signal?: AbortSignal) => never(signal),
      start: () => Promise.resolve({ id: String(sent.push('start')) }),
    } as unknown as IncusClient;
    const watch = { refresh: () => Promise.resolve() } as unknown as Watch;
    const environment = new Map([['TOKEN', Buffer.from('x')]]);
    const launch = { verb: 'launch', instance: 'one', argv: [], parameters: {}, environment } as const;
    const stop = new AbortController();
    const outcome = perform(launch, groundOf(client, new Inventory(), watch), stop.signal);
    await new Promise(setImmediate);
    stop.abort();
    expect(await outcome).toMatchObject({ kind: 'failed' });
    expect(sent).toEqual([]);
  },
);

it('a launch that was called off before is not sent, and a probe ends', async () => {
  const sent: string[] = [];
  const client = {
    start: () => Promise.resolve({ id: String(sent.push('start')) }),
    processes: (_instance: string, signal: AbortSignal) => {
      signal.throwIfAborted();
      return Promise.resolve(sent.push('probe'));
    },
  } as unknown as IncusClient;
  const watch = { refresh: () => Promise.resolve() } as unknown as Watch;
  const ground = groundOf(client, new Inventory(), watch);
  const launch = {
    verb: 'launch',
    instance: 'one',
    argv: [],
    parameters: {},
    environment: new Map(),
  } as const;
  for (const command of [launch, { verb: 'probe', instance: 'one' } as const])
    expect(await perform(command, ground, AbortSignal.abort())).toMatchObject({ kind: 'failed' });
  expect(sent).toEqual([]);
});

function groundOf(client: IncusClient, inventory: Inventory, watch: Watch): Ground {
  return {
    client,
    clock: systemClock,
    link: { resolve: () => Promise.resolve(undefined) },
    watch,
    inventory,
    host: 'build-1',
    project: 'default',
    grants: {
      allowedNamespaces: { all: true },
      allowedImages: ['*'],
      allowedProfiles: ['default'],
      allowedSources: [],
      allowedMountPaths: [],
    },
    namespaceLabels: () => ({}),
    controllerId: 'us',
    logs: undefined,
    turns: { logs: new PQueue(), archives: new FairQueue(sharesOf(4)) },
    artifacts: undefined,
  };
}
