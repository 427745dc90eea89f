import PQueue from 'p-queue';
import { expect, it } from 'vitest';
import { systemClock } from '../../../controller/clock.ts';
import { perform, type Ground } from '../../../controller/hosts/perform.ts';
import { Watch } from '../../../controller/hosts/watch.ts';
import type { IncusClient } from '../../../controller/incus/client.ts';
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
  const ground: Ground = {
    client,
    clock: systemClock,
    link: { resolve: () => Promise.resolve(undefined) },
    watch: new Watch(client, inventory, systemClock, events, () => undefined),
    inventory,
    host: 'build-1',
    project: 'default',
    allowedSources: [],
    grants: { allowedImages: ['*'], allowedProfiles: ['default'], allowedMountPaths: [] },
    controllerId: 'us',
    logs: undefined,
    turns: { logs: new PQueue(), archives: new FairQueue(sharesOf(4)) },
    artifacts: undefined,
  };
  const launch = { verb: 'launch', instance: 'one', argv: [], environment: {} } as const;
  expect(await perform(launch, ground)).toEqual({ kind: 'failed', message: 'Instance is not running' });
  expect(inventory.get('one')?.status).toBe('Stopped');
  expect(drifts).toEqual(['one Stopped']);
});
