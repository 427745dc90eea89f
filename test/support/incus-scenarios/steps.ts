import { expect } from 'vitest';
import type { Answer, Endpoint, EnvelopeSeen, EventReader, OperationSeen, SeenEvent } from './scenario.ts';

/** What every answer of Incus's API is wrapped in. */
export function envelope(answer: Answer): EnvelopeSeen {
  return JSON.parse(answer.text) as EnvelopeSeen;
}

/** Sends a request that starts an operation, waits for its end, and says how it went. */
export async function operate(
  incus: Endpoint,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ id: string; error: string; code: number; operation: OperationSeen }> {
  const begun = await incus.request(method, path, { body });
  expect(begun.status, begun.text).toBe(202);
  const { operation } = envelope(begun);
  expect(begun.headers['location']).toBe(operation);
  const waited = envelope(await incus.request('GET', `${operation}/wait?timeout=30`));
  const seen = envelope(await incus.request('GET', operation)).metadata as OperationSeen;
  return { id: seen.id, error: waited.error, code: waited.error_code, operation: seen };
}

/** Body of a request to make and start a container. `more` replaces parts of it. */
export function definition(
  incus: Endpoint,
  name: string,
  more: Record<string, unknown> = {},
): Record<string, unknown> {
  return {
    name,
    type: 'container',
    source: { type: 'image', fingerprint: incus.image },
    profiles: ['default'],
    config: { 'user.cijob.uid': 'u-1' },
    devices: {},
    start: true,
    ...more,
  };
}

/** Stops an instance, whether or not it runs, and deletes it. */
export async function remove(incus: Endpoint, name: string, project = 'default'): Promise<void> {
  await operate(incus, 'PUT', `/1.0/instances/${name}/state?project=${project}`, {
    action: 'stop',
    force: true,
  });
  const { error } = await operate(incus, 'DELETE', `/1.0/instances/${name}?project=${project}`);
  expect(error).toBe('');
}

/** Runs `body` with a started instance, and takes it away after. */
export async function withInstance(
  incus: Endpoint,
  body: (name: string) => Promise<void>,
  more: Record<string, unknown> = {},
): Promise<void> {
  const name = incus.unique('t');
  const { error } = await operate(incus, 'POST', '/1.0/instances', definition(incus, name, more));
  expect(error).toBe('');
  try {
    await body(name);
  } finally {
    await remove(incus, name);
  }
}

/** Runs a command in a guest to its end, with a secret in its environment that must show nowhere. */
export function run(incus: Endpoint, name: string, command: readonly string[], recorded = true) {
  return operate(incus, 'POST', `/1.0/instances/${name}/exec`, {
    command,
    environment: { SECRET: 'hunter2' },
    'record-output': recorded,
    'wait-for-websocket': false,
    interactive: false,
  });
}

/** A command line for the guest's shell. The simulator knows only the forms that scenarios use. */
export const sh = (script: string) => ['/bin/sh', '-c', script];
/** Picks the lifecycle events of one action on one instance. */
export const lifecycle = (action: string, name: string) => (event: SeenEvent) =>
  event.type === 'lifecycle' && event.metadata['action'] === action && event.metadata['name'] === name;
/** Picks the event with which an operation ends. */
export const ended = (id: string) => (event: SeenEvent) =>
  event.type === 'operation' &&
  event.metadata['id'] === id &&
  ['Success', 'Failure'].includes(event.metadata['status'] as string);
/** What has happened to an instance so far, in the order the events came. */
export const actions = (reader: EventReader, name: string) =>
  reader.seen
    .filter(({ type, metadata }) => type === 'lifecycle' && metadata['name'] === name)
    .map(({ metadata }) => metadata['action']);
/** How Incus says that there is no such instance. */
export const missingInstance = (name: string) =>
  `Failed to fetch instance "${name}" in project "default": Instance not found`;
