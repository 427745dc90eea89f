import { createHash } from 'node:crypto';
import type { CiJobSpec } from '../api/cijob.ts';

/** Name of the instance of an attempt. It follows from the two, so that making it twice makes one. */
export function instanceName(uid: string, attempt: number): string {
  return `cijob-${createHash('sha256').update(`${uid}:${attempt}`).digest('hex').slice(0, 12)}`;
}

/** Fields of a spec that may change while the job is under way. */
const changeable = ['suspend', 'cancel', 'ttlSecondsAfterFinished'];

/** Identifies a spec, so that an instance tells which one it was made for. */
export function specHash(spec: CiJobSpec): string {
  const fixed = Object.entries(spec).filter(([field]) => !changeable.includes(field));
  return createHash('sha256').update(JSON.stringify(fixed)).digest('hex').slice(0, 16);
}

/** Name by which a job is known everywhere outside the cluster: `namespace/name`. */
export function keyOf(metadata: { namespace?: string | undefined; name: string }): string {
  return `${metadata.namespace ?? 'default'}/${metadata.name}`;
}
