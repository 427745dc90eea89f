import * as z from 'zod';
import type { HostFiles } from './host-files.ts';
import type { Config, Devices, SimInstance } from './instance.ts';
import { Refusal } from './reply.ts';
import type { SimProject, Store } from './store.ts';
import { OperationFailure } from './work.ts';

const strings = z.record(z.string(), z.string());

/** Body of `POST /1.0/instances`, as far as it is simulated. */
export const CreateBody = z.object({
  name: z.string(),
  type: z.enum(['container', 'virtual-machine']).default('container'),
  source: z.object({
    type: z.literal('image'),
    fingerprint: z.string().optional(),
    alias: z.string().optional(),
  }),
  profiles: z.array(z.string()).nullish(),
  config: strings.nullish(),
  devices: z.record(z.string(), strings).nullish(),
  ephemeral: z.boolean().default(false),
  start: z.boolean().default(false),
});
export type CreateBody = z.infer<typeof CreateBody>;

/** Body of `POST …/exec`. */
export const ExecBody = z.object({
  command: z.array(z.string()),
  environment: strings.nullish(),
  'record-output': z.boolean().default(false),
  'wait-for-websocket': z.boolean().default(false),
  interactive: z.boolean().default(false),
  user: z.int().default(0),
  group: z.int().default(0),
  cwd: z.string().default('/root'),
  width: z.int().optional(),
  height: z.int().optional(),
});
export type ExecBody = z.infer<typeof ExecBody>;

/** Body of `PUT …/state`. */
export const StateBody = z.object({ action: z.string(), force: z.boolean().default(false) });

/** Body of `PUT` and `PATCH` of an instance. */
export const UpdateBody = z.object({
  config: strings.optional(),
  devices: z.record(z.string(), strings).optional(),
});

/** Parses a request's body; what does not fit is refused with 400, as Go's JSON decoder does (in its own words). */
export function parseBody<T>(schema: z.ZodType<T>, body: Buffer): T {
  let json: unknown;
  try {
    json = JSON.parse(body.toString());
  } catch {
    throw new Refusal(400, 'invalid character looking for beginning of object key string');
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success)
    throw new Refusal(400, `json: cannot unmarshal: ${parsed.error.issues[0]?.message ?? ''}`);
  return parsed.data;
}

/** What Incus checks before it begins an operation. */
export function checkRequest(body: CreateBody, project: SimProject): void {
  if (!/^[a-zA-Z][a-zA-Z0-9-]{0,62}$/.test(body.name))
    throw new Refusal(400, 'Invalid instance name: Name can only contain alphanumeric and hyphen characters');
  for (const profile of body.profiles ?? ['default'])
    if (!project.profiles.has(profile))
      throw new Refusal(500, `Requested profile "${profile}" doesn't exist`);
  const limit = project.config['limits.instances'];
  if (limit !== undefined && project.instances.size >= Number(limit))
    throw new Refusal(500, `Reached maximum number of instances in project "${project.name}"`);
  if (project.config['restricted'] !== 'true') return;
  const what = `on ${body.type.replace('-', ' ')} "${body.name}" of project "${project.name}"`;
  const refuse = (why: string) => new Refusal(500, `Failed checking if instance creation allowed: ${why}`);
  for (const key of Object.keys(body.config ?? {}))
    if (key.startsWith('raw.')) throw refuse(`Use of low-level config "${key}" ${what} is forbidden`);
  if (body.config?.['security.privileged'] === 'true')
    throw refuse(
      `Invalid value "true" for config "security.privileged" ${what}: Privileged containers are forbidden`,
    );
  for (const [name, device] of disks(body.devices ?? {}))
    if (!allowedParent(project.config, device['source'] ?? ''))
      throw refuse(
        `Invalid device "${name}" ${what}: Disk source path "${device['source'] ?? ''}" not allowed`,
      );
}

/** What Incus checks once the operation has begun, before there is an instance. */
export function checkRecord(
  body: CreateBody,
  project: SimProject,
  { store, host, virtualMachines }: { store: Store; host: HostFiles; virtualMachines: boolean },
): void {
  const fail = (why: string, code = 500) =>
    new OperationFailure(code, `Failed creating instance record: ${why}`);
  if (body.type === 'virtual-machine' && !virtualMachines)
    throw fail(
      'Instance type "virtual-machine" is not supported on this server: vhost_vsock kernel module not loaded',
    );
  const before = project.instances.get(body.name);
  if (before?.busy === 'create') throw fail('Instance is busy running a "create" operation');
  if (before)
    throw fail(
      'Add instance info to the database: Failed to create "instances" entry: UNIQUE constraint failed: instances.project_id, instances.name',
    );
  for (const [key, value] of Object.entries(body.config ?? {})) {
    if (!/^(user|limits|boot|security|environment|cloud-init|image|volatile|raw)\./.test(key))
      throw fail(`Unknown configuration key: ${key}`);
    if (key === 'limits.memory' && !/^\d+([KMGTP]i?B|%)?$/.test(value)) throw fail(`Invalid value: ${value}`);
  }
  for (const [name, device] of Object.entries(body.devices ?? {})) {
    if (device['io.bus'] !== undefined && body.type === 'container')
      throw fail(
        `Failed initializing instance: Invalid devices: Device validation failed for "${name}": IO bus configuration cannot be applied to containers`,
      );
    const pool = device['pool'];
    if (pool !== undefined && !store.pools.has(pool))
      throw fail('Failed initializing instance: Failed loading storage pool: Storage pool not found', 404);
  }
  const missing = missingSource(body.devices ?? {}, host);
  if (missing) throw fail(`Failed initializing instance: Failed add validation for device ${missing}`);
}

/** What Incus checks of disk devices when an instance starts: the sources may have changed since it was made. */
export function checkStart({ type, devices, project }: SimInstance, host: HostFiles): void {
  const missing = missingSource(devices, host);
  if (missing) throw new OperationFailure(500, `Failed start validation for device ${missing}`);
  for (const [name, device] of Object.entries(devices)) {
    if (device['type'] !== 'unix-char' || host.exists(device['source'] ?? '')) continue;
    const why = `The required device path doesn't exist and the major and minor settings are not specified`;
    throw new OperationFailure(500, `Failed to start device "${name}": ${why}`);
  }
  if (project.config['restricted'] !== 'true') return;
  for (const [name, device] of disks(devices)) {
    const fail = (why: string) => new OperationFailure(500, `Failed to start device "${name}": ${why}`);
    if (type === 'container' && device['shift'] === 'true')
      throw fail('The "shift" property cannot be used with a restricted source path');
    const source = device['source'] ?? '';
    const parent = allowedParent(project.config, source) ?? '';
    const real = host.realpath(source);
    if (typeof real === 'string' || !inside(real.path, parent))
      throw fail(`Source path "${source}" resolves outside of restricted parent source path "${parent}"`);
  }
}

function missingSource(devices: Devices, host: HostFiles): string | undefined {
  for (const [name, device] of disks(devices)) {
    const source = device['source'] ?? '';
    if (!host.exists(source)) return `"${name}": Missing source path "${source}" for disk "${name}"`;
  }
  return undefined;
}

/** Disk devices that share a path of the host. */
function disks(devices: Devices): [string, Config][] {
  return Object.entries(devices).filter(
    ([, device]) => device['type'] === 'disk' && device['source'] !== undefined,
  );
}

function allowedParent(config: Config, source: string): string | undefined {
  if (source.split('/').includes('..')) return undefined;
  return (config['restricted.devices.disk.paths'] ?? '')
    .split(',')
    .find((parent) => parent !== '' && inside(source, parent));
}

function inside(path: string, parent: string): boolean {
  return path === parent || path.startsWith(`${parent}/`);
}
