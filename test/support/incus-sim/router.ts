import { dirname } from 'node:path/posix';
import type { Daemon } from './daemon.ts';
import { async, failure, Refusal, type SimReply, type SimRequest, sync } from './reply.ts';
import { CreateBody, ExecBody, parseBody, StateBody, UpdateBody } from './validation.ts';

/** A request with what its path and query name. */
interface Call extends SimRequest {
  daemon: Daemon;
  project: string;
  /** Parts of the path that the route left open, decoded. */
  words: readonly string[];
}

type Handler = (call: Call) => SimReply | Promise<SimReply>;

const routes: readonly [method: string, path: RegExp, handler: Handler][] = [
  ['GET', /^\/1\.0$/, ({ daemon }) => sync(server(daemon))],
  [
    'GET',
    /^\/1\.0\/projects$/,
    ({ daemon }) => sync([...daemon.parts.store.projects.keys()].map((name) => `/1.0/projects/${name}`)),
  ],
  ['GET', /^\/1\.0\/projects\/([^/]+)$/, ({ daemon, words }) => sync(projectJson(daemon, words[0] ?? ''))],
  ['GET', /^\/1\.0\/profiles$/, profiles],
  ['GET', /^\/1\.0\/profiles\/([^/]+)$/, profile],
  ['GET', /^\/1\.0\/resources$/, ({ daemon }) => sync(daemon.parts.store.machine)],
  ['GET', /^\/1\.0\/storage-pools$/, pools],
  ['GET', /^\/1\.0\/storage-pools\/([^/]+)\/resources$/, poolResources],
  ['GET', /^\/1\.0\/networks$/, () => sync([])],
  ['GET', /^\/1\.0\/network-acls$/, () => sync([])],
  ['GET', /^\/1\.0\/images\/aliases\/(.+)$/, alias],
  ['GET', /^\/1\.0\/images\/([^/]+)$/, image],
  ['GET', /^\/1\.0\/instances$/, instances],
  [
    'POST',
    /^\/1\.0\/instances$/,
    ({ daemon, body, project }) => async(daemon.create(parseBody(CreateBody, body), project).json),
  ],
  ['GET', /^\/1\.0\/instances\/([^/]+)$/, (call) => sync(named(call).json())],
  ['PUT', /^\/1\.0\/instances\/([^/]+)$/, update],
  ['PATCH', /^\/1\.0\/instances\/([^/]+)$/, update],
  ['DELETE', /^\/1\.0\/instances\/([^/]+)$/, (call) => async(call.daemon.remove(named(call)).json)],
  ['GET', /^\/1\.0\/instances\/([^/]+)\/state$/, (call) => sync(named(call).state())],
  [
    'PUT',
    /^\/1\.0\/instances\/([^/]+)\/state$/,
    (call) => {
      const instance = named(call);
      const { action, force } = parseBody(StateBody, call.body);
      return async(call.daemon.power.change(instance, action, force).json);
    },
  ],
  [
    'POST',
    /^\/1\.0\/instances\/([^/]+)\/exec$/,
    (call) => {
      const instance = named(call);
      return async(call.daemon.exec(instance, parseBody(ExecBody, call.body)).json);
    },
  ],
  ['GET', /^\/1\.0\/instances\/([^/]+)\/files$/, files],
  ['HEAD', /^\/1\.0\/instances\/([^/]+)\/files$/, files],
  ['POST', /^\/1\.0\/instances\/([^/]+)\/files$/, putFile],
  [
    'GET',
    /^\/1\.0\/instances\/([^/]+)\/logs\/exec-output$/,
    (call) => {
      const { name, outputs } = named(call);
      return sync([...outputs.keys()].map((file) => `/1.0/instances/${name}/logs/exec-output/${file}`));
    },
  ],
  ['GET', /^\/1\.0\/instances\/([^/]+)\/logs\/exec-output\/([^/]+)$/, output],
  [
    'GET',
    /^\/1\.0\/instances\/([^/]+)\/logs\/([^/]+)$/,
    (call) => {
      const log = named(call).logs.get(call.words[1] ?? '');
      if (log === undefined) throw new Refusal(404, 'Not Found');
      return { status: 200, headers: { 'content-type': 'application/octet-stream' }, body: Buffer.from(log) };
    },
  ],
  ['GET', /^\/1\.0\/operations$/, operations],
  [
    'GET',
    /^\/1\.0\/operations\/([^/]+)$/,
    ({ daemon, words }) => sync(daemon.operations.get(words[0] ?? '').json),
  ],
  ['GET', /^\/1\.0\/operations\/([^/]+)\/wait$/, wait],
  [
    'DELETE',
    /^\/1\.0\/operations\/([^/]+)$/,
    ({ daemon, words }) => {
      daemon.operations.get(words[0] ?? '');
      throw new Refusal(400, "This operation can't be cancelled");
    },
  ],
  ['GET', /^\/1\.0\/events$/, () => ({ status: 400, headers: {}, body: Buffer.from('Bad Request\n') })],
];

/** Answers one request as Incus would. */
export async function answer(daemon: Daemon, request: SimRequest): Promise<SimReply> {
  try {
    for (const [method, path, handler] of routes) {
      const match = method === request.method ? path.exec(request.path) : null;
      if (!match) continue;
      const words = match.slice(1).map(decodeURIComponent);
      return await handler({ ...request, daemon, words, project: request.query.get('project') ?? 'default' });
    }
    return failure(404, 'not found');
  } catch (error) {
    if (error instanceof Refusal) return failure(error.code, error.message);
    throw error;
  }
}

function named({ daemon, project, words }: Call) {
  return daemon.instance(project, words[0] ?? '');
}

function server({ parts }: Daemon) {
  return {
    config: {},
    api_extensions: ['container_exec_recording', 'event_lifecycle', 'projects', 'container_disk_shift'],
    api_status: 'stable',
    api_version: '1.0',
    auth: 'trusted',
    public: false,
    auth_methods: ['tls'],
    auth_user_name: 'root',
    auth_user_method: 'unix',
    environment: {
      addresses: [],
      architectures: ['x86_64', 'i686'],
      driver: parts.virtualMachines ? 'lxc | qemu' : 'lxc',
      driver_version: parts.virtualMachines ? '5.0.2 | 7.2.9' : '5.0.2',
      kernel: 'Linux',
      project: 'default',
      server: 'incus',
      server_clustered: false,
      server_name: 'simulated',
      server_version: '6.0.4',
      storage: 'dir',
      storage_version: '1',
    },
  };
}

function projectJson(daemon: Daemon, name: string) {
  const { config } = daemon.project(name);
  return { config, description: '', name, used_by: [] };
}

function profiles({ daemon, project }: Call): SimReply {
  const all = [...daemon.project(project).profiles];
  return sync(all.map(([name, found]) => ({ ...found, description: '', name, used_by: [], project })));
}

function pools({ daemon }: Call): SimReply {
  const about = { config: {}, description: '', driver: 'dir', status: 'Created', locations: ['none'] };
  return sync([...daemon.parts.store.pools].map((name) => ({ ...about, name, used_by: [] })));
}

function poolResources({ daemon, words }: Call): SimReply {
  const { pools, poolSpace } = daemon.parts.store;
  if (!pools.has(words[0] ?? '')) throw new Refusal(500, 'Storage pool not found');
  return sync({ inodes: { used: 0, total: 0 }, space: poolSpace });
}

function profile({ daemon, project, words }: Call): SimReply {
  const name = words[0] ?? '';
  const found = daemon.project(project).profiles.get(name);
  if (!found) throw new Refusal(404, 'Profile not found');
  return sync({ ...found, description: '', name, used_by: [], project });
}

function alias({ daemon, words }: Call): SimReply {
  const name = words[0] ?? '';
  const found = daemon.parts.store.images.find(({ aliases }) => aliases.includes(name));
  if (!found) throw new Refusal(404, 'Image alias not found');
  return sync({ description: '', target: found.fingerprint, name, type: found.type });
}

function image({ daemon, words, project }: Call): SimReply {
  const prefix = words[0] ?? '';
  const found = daemon.parts.store.images.find(({ fingerprint }) => fingerprint.startsWith(prefix));
  if (!found) throw new Refusal(404, 'Image not found');
  const { fingerprint, type, aliases } = found;
  return sync({
    auto_update: false,
    properties: {},
    public: false,
    aliases: aliases.map((name) => ({ name, description: '' })),
    architecture: 'x86_64',
    fingerprint,
    size: 1036743,
    type,
    project,
  });
}

function instances({ daemon, project, query }: Call): SimReply {
  const store = daemon.parts.store.projects;
  const wanted = query.get('all-projects') === 'true' ? [...store.values()] : [store.get(project)];
  const all = wanted.flatMap((one) => [...(one?.instances.values() ?? [])]);
  const recursion = query.get('recursion');
  if (recursion === '1') return sync(all.map((one) => one.json()));
  if (recursion === '2')
    return sync(all.map((one) => ({ ...one.json(), backups: null, state: one.state(), snapshots: null })));
  return sync(all.map((one) => one.url));
}

function update(call: Call): SimReply {
  const instance = named(call);
  const { config, devices } = parseBody(UpdateBody, call.body);
  if (call.method === 'PATCH') {
    if (config) instance.set(config);
    if (devices) instance.devices = { ...instance.devices, ...devices };
    call.daemon.updated(instance);
    return sync({});
  }
  const operation = call.daemon.operations.begin('Updating instance', call.project, {
    instances: [instance.url],
  });
  if (config) instance.config = config;
  if (devices) instance.devices = devices;
  call.daemon.updated(instance);
  operation.succeed();
  return async(operation.json);
}

function files(call: Call): SimReply {
  const instance = named(call);
  const path = call.query.get('path') ?? '';
  if (path === '') throw new Refusal(400, 'Missing path argument');
  // Read in the source of Incus, not measured: a VM's files are its agent's to give.
  if (instance.type === 'virtual-machine' && instance.power === 'Stopped')
    throw new Refusal(500, 'Instance is not running');
  if (instance.agentOffline) throw new Refusal(500, "VM agent isn't currently running");
  if (instance.busy === 'restart' && instance.guest.files.stuck)
    return { status: 200, headers: {}, body: 'never' };
  const range = call.headers['range'];
  const reply = instance.guest.files.reply(call.method, path, typeof range === 'string' ? range : undefined);
  if (call.method === 'GET' && reply.body !== 'never') call.daemon.fileRetrieved(instance, path);
  return reply;
}

function putFile(call: Call): SimReply {
  const { guest } = named(call);
  const path = call.query.get('path') ?? '';
  if (guest.files.get(dirname(path))?.kind !== 'directory') throw new Refusal(404, 'Not Found');
  const text = (name: string) => String(call.headers[`x-incus-${name}`] ?? '');
  const [uid, gid, mode] = [Number(text('uid')), Number(text('gid')), text('mode')];
  guest.files.set(path, { kind: 'file', content: call.body, uid, gid, mode });
  return sync({});
}

function output(call: Call): SimReply {
  const text = named(call).outputs.get(call.words[1] ?? '');
  if (text === undefined) throw new Refusal(404, 'Not Found');
  return { status: 200, headers: { 'content-type': 'application/octet-stream' }, body: Buffer.from(text) };
}

function operations({ daemon, project, query }: Call): SimReply {
  const groups = Object.entries(daemon.operations.list(project));
  if (query.get('recursion') === '1') return sync(Object.fromEntries(groups));
  return sync(
    Object.fromEntries(
      groups.map(([status, list]) => [status, list.map(({ id }) => `/1.0/operations/${id}`)]),
    ),
  );
}

/** Answers when the operation has ended or the time is up; always with HTTP 200. */
function wait({ daemon, words, query }: Call): Promise<SimReply> {
  const operation = daemon.operations.get(words[0] ?? '');
  const seconds = Number(query.get('timeout') ?? -1);
  return new Promise((resolve) => {
    const late =
      seconds < 0
        ? () => undefined
        : daemon.parts.clock.after(seconds * 1000, () =>
            resolve(failure(500, 'context deadline exceeded', 200)),
          );
    operation.onEnded(() => {
      late();
      const { json, failureCode } = operation;
      resolve(json.status === 'Success' ? sync(json) : failure(failureCode, json.err, 200));
    });
  });
}
