import { isDeepStrictEqual } from 'node:util';
import type { InstanceView } from './inventory.ts';

/** Which part of an instance's definition was changed since it was made. */
export type Reconfigured = 'DevicesChanged' | 'ConfigChanged';

/** Compares two views of one instance. The order of keys says nothing: Incus sorts them, and a definition does not. */
export function reconfigured(before: InstanceView, after: InstanceView): Reconfigured[] {
  const same = (part: 'devices' | 'settings') => isDeepStrictEqual(before[part], after[part]);
  return [
    ...(same('devices') ? [] : (['DevicesChanged'] as const)),
    ...(same('settings') ? [] : (['ConfigChanged'] as const)),
  ];
}
