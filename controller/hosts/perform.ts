import type { Clock } from '../clock.ts';
import type { IncusClient } from '../incus/client.ts';
import { requestOf, type Command } from '../incus/commands.ts';
import { IncusError } from '../incus/errors.ts';
import type { Inventory } from '../incus/inventory.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import { SshError } from '../ssh/errors.ts';
import { refusalByGrants, type Grants } from './grants.ts';
import type { Link } from './link.ts';
import type { Artifacts } from './artifacts.ts';
import { collect } from './collect.ts';
import { launch } from './launch.ts';
import type { LiveLogs } from './live-logs.ts';
import type { Turns } from './session.ts';
import { resolveMounts } from './mount-sources.ts';
import { refusalOfSource } from './sources.ts';
import { whyNotStarted } from './start-failure.ts';
import type { Watch } from './watch.ts';

/** What a command may rely on. */
export interface Ground {
  client: IncusClient;
  clock: Clock;
  link: Pick<Link, 'resolve'>;
  watch: Watch;
  turns: Turns;
  inventory: Inventory;
  /** Name of the IncusHost. */
  host: string;
  project: string;
  /** What the IncusHost lets jobs use, as it is now. */
  grants: Grants;
  /** Labels of a namespace, as they are now. */
  namespaceLabels: (namespace: string) => Readonly<Record<string, string>>;
  /** Identity that an instance must carry to be stopped or deleted. */
  controllerId: string;
  /** Where the logs of guests go while and after they are written. */
  logs: LiveLogs | undefined;
  /** Keeps what jobs leave. */
  artifacts: Artifacts | undefined;
}

/**
 * Carries out one command. Never rejects: what went wrong is the outcome.
 *
 * @param signal ends a collect early, with what was read so far, and what a launch or a probe waits for at a guest. No
 *   other command can be called back, nor a runner that was started.
 */
export async function perform(
  command: Command,
  ground: Ground,
  signal?: AbortSignal,
): Promise<CommandOutcome> {
  try {
    switch (command.verb) {
      case 'resolve':
        return await resolve(command, ground);
      case 'create':
        return await create(command, ground);
      case 'launch':
        return await launch(command, ground, signal);
      case 'probe':
        return { kind: 'probed', ready: (await ground.client.processes(command.instance, signal)) >= 0 };
      case 'collect':
        return await collect(command, ground, signal);
      case 'read':
        await ground.watch.refresh(command.instance);
        return { kind: ground.inventory.get(command.instance) ? 'done' : 'gone' };
      case 'stop':
      case 'delete':
        return await remove(command, ground);
    }
  } catch (error) {
    const outcome = outcomeOf(error, command);
    // A guest's file that cannot be read says nothing of the server.
    if (outcome.kind === 'unknown' && command.verb !== 'collect') await ground.watch.lookAgain();
    // The guest is not what we took it for, and maybe no event says so: of a restart, Incus tells only the end.
    if (outcome.kind === 'failed' && command.verb === 'launch') {
      await ground.watch.refresh(command.instance).catch(() => undefined);
    }
    return outcome;
  }
}

async function resolve(
  { wanted, type }: Extract<Command, { verb: 'resolve' }>,
  { client, link, host, project, grants, namespaceLabels }: Ground,
): Promise<CommandOutcome> {
  const refused = refusalByGrants(wanted, grants, namespaceLabels(wanted.namespace), host);
  if (refused) return refused;
  const image = client.image(wanted.image).catch((error: unknown) => {
    if (error instanceof IncusError && error.kind === 'NotFound') return undefined;
    throw error;
  });
  const profiles = Promise.all(wanted.profiles.map((profile) => client.hasProfile(profile)));
  const resolving = resolveMounts(link, wanted.mounts, grants.allowedSources, host);
  const [mounts, foundImage, found] = await Promise.all([resolving, image, profiles]);
  if ('refused' in mounts) return { kind: 'refused', reason: mounts.refused, message: mounts.message };
  const missing = wanted.profiles[found.indexOf(false)];
  if (missing !== undefined) {
    return {
      kind: 'refused',
      reason: 'ProfileNotFound',
      message: `host ${host} has no profile ${missing} in project ${project}`,
    };
  }
  if (foundImage === undefined) {
    return {
      kind: 'refused',
      reason: 'ImageNotFound',
      message: `host ${host} has no image ${wanted.image} in project ${project}`,
    };
  }
  if (foundImage.type !== type) {
    return {
      kind: 'refused',
      reason: 'ImageTypeMismatch',
      message: `image ${wanted.image} on host ${host} is one for a ${foundImage.type}, not for a ${type}`,
    };
  }
  return { kind: 'resolved', fingerprint: foundImage.fingerprint, sources: mounts.sources };
}

async function create(
  command: Extract<Command, { verb: 'create' }>,
  ground: Ground,
): Promise<CommandOutcome> {
  const { client, watch, inventory, project } = ground;
  const { definition } = command;
  const refused = refusalOfCreate(command, ground);
  if (refused) return refused;
  inventory.expect(definition);
  try {
    const operation = await client.start(requestOf(command, project));
    const ended = await watch.operationEnd(operation);
    if (ended.succeeded) {
      // Its end may be told before the start that was part of it.
      inventory.started(definition.name, Date.parse(operation.created_at));
      return { kind: 'done' };
    }
    // A failed operation has no code. What is there now tells whether it failed because the instance exists.
    await watch.refresh(definition.name);
    const existing = inventory.get(definition.name);
    if (!existing) return { kind: 'failed', message: ended.error };
    const ours = ['uid', 'controller'].every(
      (label) => existing.labels[label] === definition.config[`user.cijob.${label}`],
    );
    if (!ours) {
      return {
        kind: 'refused',
        reason: 'InstanceNameTaken',
        message: `an instance ${definition.name} that is not ours exists already; it was left alone`,
      };
    }
    // Somebody else has made it, or is at it: how it is now says how to go on.
    const madeByUs = (existing.createdAt ?? 0) >= Date.parse(operation.created_at);
    if (!madeByUs || existing.status !== 'Stopped' || existing.operations.size > 0) return { kind: 'done' };
    const message = (await whyNotStarted(client, existing, ended.error)) ?? ended.error;
    return { kind: 'failed', reason: 'StartFailed', message };
  } finally {
    inventory.unexpect(definition.name);
  }
}

/**
 * Why an instance may not be made that could be when the job was given to the host. A creation waits for its turn, and is
 * tried again; what the host lets jobs use, or the labels of the job's namespace, may have changed since.
 */
function refusalOfCreate(
  { wanted, definition }: Extract<Command, { verb: 'create' }>,
  { grants, namespaceLabels, host }: Ground,
): CommandOutcome | undefined {
  const refused = refusalByGrants(wanted, grants, namespaceLabels(wanted.namespace), host);
  if (refused) return refused;
  const leadsTo = new Map(Object.values(definition.devices).map(({ path, source }) => [path, source]));
  for (const { source, path } of wanted.mounts) {
    const refusal = refusalOfSource(source, leadsTo.get(path) ?? source, grants.allowedSources, host);
    if (refusal) return { kind: 'refused', reason: refusal.refused, message: refusal.message };
  }
  return undefined;
}

async function remove(
  command: Extract<Command, { verb: 'stop' | 'delete' }>,
  { client, watch, inventory, project, controllerId, logs, artifacts }: Ground,
): Promise<CommandOutcome> {
  const name = command.instance;
  await watch.refresh(name);
  const current = inventory.get(name);
  if (!current) return { kind: 'gone' };
  const { uid, controller = controllerId } = command;
  if (current.labels['uid'] !== uid || current.labels['controller'] !== controller) {
    return {
      kind: 'refused',
      reason: 'InstanceNotOurs',
      message: `instance ${name} belongs to something else; it was left alone`,
    };
  }
  if (command.verb === 'stop' && current.status === 'Stopped') return { kind: 'done' };
  if (command.verb === 'delete') {
    logs?.forget(name);
    artifacts?.forget(name);
  }
  const operation = await client.start(requestOf(command, project));
  const ended = await watch.operationEnd(operation);
  // Stopped or gone meanwhile is what we wanted: what is there now decides, not why the operation failed.
  await watch.refresh(name);
  const left = inventory.get(name);
  if (!left) return { kind: 'gone' };
  const reached = ended.succeeded || (command.verb === 'stop' && left.status !== 'Running');
  return reached ? { kind: 'done' } : { kind: 'failed', message: ended.error };
}

function outcomeOf(error: unknown, { verb }: Command): CommandOutcome {
  if (error instanceof IncusError) {
    switch (error.kind) {
      case 'Refused':
      case 'Forbidden':
        // What we ask for is wrong only where we ask for something of the job's. Elsewhere the instance has moved on.
        return verb === 'create' || verb === 'resolve'
          ? { kind: 'refused', reason: `Incus${error.kind}`, message: error.message }
          : { kind: 'failed', message: error.message };
      case 'Unknown':
      case 'ServerError':
        return { kind: 'unknown', message: error.message };
      case 'NotFound':
      case 'Conflict':
      case 'OperationFailed':
      case 'Garbled':
      case 'TooSlow':
      case 'TooLarge':
        return { kind: 'failed', message: error.message };
    }
  }
  if (error instanceof SshError) return { kind: 'unknown', message: error.message };
  return { kind: 'failed', message: error instanceof Error ? error.message : String(error) };
}
