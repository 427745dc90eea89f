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
import { resolveSource } from './sources.ts';
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
  allowedSources: readonly string[];
  grants: Grants;
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
 * @param signal ends a collect early, with what was read so far. No other command can be called back.
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
        return await launch(command, ground);
      case 'probe':
        return { kind: 'probed', ready: (await ground.client.processes(command.instance)) >= 0 };
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
  command: Extract<Command, { verb: 'resolve' }>,
  { client, link, host, project, allowedSources, grants }: Ground,
): Promise<CommandOutcome> {
  const refused = refusalByGrants(command, grants, host);
  if (refused) return refused;
  const image = client.image(command.image).catch((error: unknown) => {
    if (error instanceof IncusError && error.kind === 'NotFound') return undefined;
    throw error;
  });
  const profiles = Promise.all(command.profiles.map((profile) => client.hasProfile(profile)));
  const sources: Record<string, string> = {};
  const resolving = Promise.all(
    command.sources.map((source) => resolveSource(link, source, allowedSources, host)),
  );
  const [resolved, foundImage, found] = await Promise.all([resolving, image, profiles]);
  for (const [index, source] of resolved.entries()) {
    if ('refused' in source) return { kind: 'refused', reason: source.refused, message: source.message };
    sources[command.sources[index] ?? ''] = source.path;
  }
  const missing = command.profiles[found.indexOf(false)];
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
      message: `host ${host} has no image ${command.image} in project ${project}`,
    };
  }
  if (foundImage.type !== command.type) {
    return {
      kind: 'refused',
      reason: 'ImageTypeMismatch',
      message: `image ${command.image} on host ${host} is one for a ${foundImage.type}, not for a ${command.type}`,
    };
  }
  return { kind: 'resolved', fingerprint: foundImage.fingerprint, sources };
}

async function create(
  command: Extract<Command, { verb: 'create' }>,
  { client, watch, inventory, project }: Ground,
): Promise<CommandOutcome> {
  const { definition } = command;
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
    if (ours) return { kind: 'done' };
    return {
      kind: 'refused',
      reason: 'InstanceNameTaken',
      message: `an instance ${definition.name} that is not ours exists already; it was left alone`,
    };
  } finally {
    inventory.unexpect(definition.name);
  }
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
