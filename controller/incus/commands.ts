import { environmentFilePath, environmentFileVariable, type Variables } from './environment-file.ts';
import type { HttpRequest } from './http.ts';

/** A disk or other device of an instance, as Incus's configuration keys. */
export type Device = Readonly<Record<string, string>>;

/** What `POST /1.0/instances` is asked to make. */
export interface InstanceDefinition {
  name: string;
  type: 'container' | 'virtual-machine';
  /** Exact fingerprint, so that an alias that moves between two attempts is seen. */
  fingerprint: string;
  profiles: readonly string[];
  config: Readonly<Record<string, string>>;
  devices: Readonly<Record<string, Device>>;
}

/** What a job asks of a host, by the names that the job uses: what the host's grants are about. */
export interface Wanted {
  namespace: string;
  image: string;
  profiles: readonly string[];
  /** Directories of the host, and where the guest sees each. */
  mounts: readonly { source: string; path: string }[];
}

/**
 * Something to ask of Incus, as data. Each is idempotent: carrying it out twice ends where carrying it out once does.
 *
 * - resolve: ask for the image's fingerprint, follow the mounts' sources and look for what they lack. Changes nothing.
 * - create: make the instance with devices and config, and start it, in one request.
 * - launch: run the guest's runner; the runner itself runs the job's command at most once.
 * - probe: does the agent of a booting VM answer yet? (Containers need no probe.)
 * - collect: read result and log, and keep the files that `artifacts` matches (hosts/globs.ts).
 * - read: ask for the instance itself, where what lists and events tell of it may be old. Changes nothing.
 * - stop: force it. The job is over or called off by then.
 * - delete: remove it.
 */
export type Command =
  | {
      verb: 'resolve';
      instance: string;
      type: InstanceDefinition['type'];
      wanted: Wanted;
    }
  /** `wanted`: grants may have changed since the command was planned, so they are asked again when it is sent. */
  | { verb: 'create'; instance: string; definition: InstanceDefinition; wanted: Wanted }
  | {
      verb: 'launch';
      instance: string;
      argv: readonly string[];
      /** Environment of the exec: what the runner is to know, and nothing of the job's. */
      parameters: Readonly<Record<string, string>>;
      /** The job's own variables, which go by a file (environment-file.ts). */
      environment: Variables;
    }
  | { verb: 'probe'; instance: string }
  | {
      verb: 'collect';
      instance: string;
      artifacts: readonly string[];
      /** How much of the log's end to read, where an excerpt's worth is not enough. */
      logBytes?: number;
      /** When to do with what was read by then, in milliseconds; a few minutes when left out. */
      withinMs?: number;
      /** The result is enough, whatever goes wrong with the log and the artifacts. */
      resultOnly?: boolean;
    }
  | { verb: 'read'; instance: string }
  /**
   * `uid` is the job's: an instance that carries another is left alone. So is one of another `controller`, which is our own
   * where none is named.
   */
  | { verb: 'stop'; instance: string; uid: string; controller?: string }
  | { verb: 'delete'; instance: string; uid: string; controller?: string };
export type Verb = Command['verb'];
export type ChangingCommand = Extract<Command, { verb: 'create' | 'launch' | 'stop' | 'delete' }>;

type Request = Pick<HttpRequest, 'method' | 'path' | 'body'>;

export const resultPath = '/artifacts/result.json';
export const logPath = '/artifacts/guest.log';
/** Where a command leaves what is to be kept. */
export const artifactsPath = '/artifacts';

/** Path of one instance, or of something below it, with the project. */
export function instancePath(project: string, instance: string, below = '', query = ''): string {
  const separator = query === '' ? '' : '&';
  return `/1.0/instances/${encodeURIComponent(instance)}${below}?project=${encodeURIComponent(project)}${separator}${query}`;
}

/** Path of a file in a guest. */
export function filePath(project: string, instance: string, path: string): string {
  return instancePath(project, instance, '/files', `path=${encodeURIComponent(path)}`);
}

/** First face of a command that changes something: the request of Incus's REST API that carries it out. */
export function requestOf(command: ChangingCommand, project: string): Request {
  const at = (below = '') => instancePath(project, command.instance, below);
  switch (command.verb) {
    case 'create': {
      const { name, type, fingerprint, profiles, config, devices } = command.definition;
      return {
        method: 'POST',
        path: `/1.0/instances?project=${encodeURIComponent(project)}`,
        body: { name, type, source: { type: 'image', fingerprint }, profiles, config, devices, start: true },
      };
    }
    case 'launch':
      return {
        method: 'POST',
        path: at('/exec'),
        body: {
          command: command.argv,
          environment: execEnvironment(command),
          // Recorded, because in a VM an exec with neither recording nor websocket is killed within a second.
          'record-output': true,
          'wait-for-websocket': false,
          interactive: false,
        },
      };
    case 'stop':
      return { method: 'PUT', path: at('/state'), body: { action: 'stop', force: true, timeout: -1 } };
    case 'delete':
      return { method: 'DELETE', path: at() };
  }
}

/**
 * Second face of a command: lines of the `incus` client that do the same, for logs, events and `cijob plan`, to be
 * read and repeated by an operator. Values of the job's environment are left out.
 */
export function commandLines(command: Command, project: string): string[] {
  const incus = (...words: string[]) => ['incus', ...words, '--project', project].map(quote).join(' ');
  const name = command.instance;
  switch (command.verb) {
    case 'resolve': {
      const { image, profiles, mounts } = command.wanted;
      return [
        incus('image', 'info', image),
        ...profiles.map((profile) => incus('profile', 'show', profile)),
        ...new Set(mounts.map(({ source }) => `realpath -e ${quote(source)}`)),
      ];
    }
    case 'create': {
      const { type, fingerprint, profiles, config, devices } = command.definition;
      const flags = [
        ...(type === 'virtual-machine' ? ['--vm'] : []),
        ...(profiles.length === 0
          ? ['--no-profiles']
          : profiles.flatMap((profile) => ['--profile', profile])),
        ...Object.entries(config).flatMap(([key, value]) => ['--config', `${key}=${value}`]),
      ];
      const disks = Object.entries(devices).map(([device, { type: kind = 'disk', ...options }]) =>
        incus('config', 'device', 'add', name, device, kind, ...pairs(options)),
      );
      return [incus('create', fingerprint, name, ...flags), ...disks, incus('start', name)];
    }
    case 'launch': {
      const names = [...command.environment.keys()].map((key) => `${key}=…`);
      const owner = ['--uid', '0', '--gid', '0', '--mode', '0600'];
      const push = incus('file', 'push', '-', `${name}${environmentFilePath}`, ...owner);
      const environment = pairs(execEnvironment(command)).flatMap((pair) => ['--env', pair]);
      const exec = [...environment, '--', ...command.argv].map(quote).join(' ');
      return [
        ...(names.length === 0 ? [] : [`printf '%s\\0' ${names.join(' ')} '' | ${push}`]),
        `${incus('exec', name)} ${exec}`,
      ];
    }
    case 'probe':
      return [['incus', 'query', instancePath(project, name, '/state')].map(quote).join(' ')];
    case 'collect':
      return [
        ...[resultPath, logPath].map((path) => incus('file', 'pull', `${name}${path}`, '-')),
        ...(command.artifacts.length === 0
          ? []
          : [incus('file', 'pull', '--recursive', `${name}${artifactsPath}`, '.')]),
      ];
    case 'read':
      return [incus('config', 'show', name)];
    case 'stop':
      return [incus('stop', name, '--force')];
    case 'delete':
      return [incus('delete', name)];
  }
}

/** The runner takes the job's variables from the file where the exec says so. */
function execEnvironment({
  parameters,
  environment,
}: Extract<Command, { verb: 'launch' }>): Record<string, string> {
  const file = environment.size === 0 ? {} : { [environmentFileVariable]: environmentFilePath };
  return { ...parameters, ...file };
}

function pairs(options: Record<string, string>): string[] {
  return Object.entries(options).map(([key, value]) => `${key}=${value}`);
}

/** Quotes one word for a POSIX shell. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_\-.,:/@%+=]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
