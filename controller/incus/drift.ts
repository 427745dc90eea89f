import { isDeepStrictEqual } from 'node:util';
import type { InstanceView } from './inventory.ts';

/** What two views of an instance, one after the other, show to have been done to it. */
export type SeenDrift = 'Stopped' | 'DevicesChanged' | 'ConfigChanged';

/** Compares two views of one instance. The order of keys says nothing: Incus sorts them, and a definition does not. */
export function driftBetween(before: InstanceView, after: InstanceView): SeenDrift[] {
  const same = (part: 'devices' | 'settings') => isDeepStrictEqual(before[part], after[part]);
  return [
    ...(before.status === 'Running' && after.status === 'Stopped' ? (['Stopped'] as const) : []),
    ...(same('devices') ? [] : (['DevicesChanged'] as const)),
    ...(same('settings') ? [] : (['ConfigChanged'] as const)),
  ];
}
