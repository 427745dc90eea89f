import { expect } from 'vitest';

/** An answer of an Incus, simulated or real. */
export interface Answer {
  status: number;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  text: string;
}

/** Events of one stream, in the order they came. */
export interface EventReader {
  readonly seen: readonly SeenEvent[];
  /** Waits until an event for which `wanted` says true has come (before or after this call); fails after 10 s. */
  until(wanted: (event: SeenEvent) => boolean): Promise<SeenEvent>;
  close(): void;
}

/** A WebSocket of an exec. */
export interface ByteStream {
  /** All bytes that came. */
  text(): string;
  readonly closed: Promise<void>;
  terminate(): void;
}

export interface SeenEvent {
  type: string;
  project?: string;
  metadata: Record<string, unknown>;
}

/** An Incus to hold a scenario against: the simulator, or the real thing. */
export interface Endpoint {
  request(
    method: string,
    path: string,
    options?: { body?: unknown; headers?: Record<string, string>; abortAfter?: number },
  ): Promise<Answer>;
  /** Opens `/1.0/events?<query>`; rejects with the HTTP status as message when refused. */
  events(query: string): Promise<EventReader>;
  /** Opens another WebSocket; rejects with the HTTP status as message when refused. */
  stream(path: string): Promise<ByteStream>;
  /** Fingerprint of a busybox container image there. */
  image: string;
  /** An existing directory of the host, a link in the same parent that leads out of that parent, and the parent. */
  source: string;
  linkOut: string;
  parent: string;
  /** Makes a project with that config and a `default` profile with a root disk in the pool `default`. */
  addProject(name: string, config: Record<string, string>): Promise<void>;
  /** A name no one else uses, for an instance or a project. */
  unique(prefix: string): string;
}

export interface Scenario {
  name: string;
  run(incus: Endpoint): Promise<void>;
}

interface OperationSeen {
  id: string;
  class: string;
  description: string;
  status: string;
  status_code: number;
  resources: Record<string, string[]>;
  metadata: Record<string, unknown> | null;
  may_cancel: boolean;
  err: string;
  location: string;
}

interface EnvelopeSeen {
  type: string;
  status: string;
  status_code: number;
  operation: string;
  error_code: number;
  error: string;
  metadata: unknown;
}

function envelope(answer: Answer): EnvelopeSeen {
  return JSON.parse(answer.text) as EnvelopeSeen;
}

/** Sends a request that starts an operation, waits for its end, and says how it went. */
async function operate(
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

function definition(
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

async function remove(incus: Endpoint, name: string, project = 'default'): Promise<void> {
  await operate(incus, 'PUT', `/1.0/instances/${name}/state?project=${project}`, {
    action: 'stop',
    force: true,
  });
  const { error } = await operate(incus, 'DELETE', `/1.0/instances/${name}?project=${project}`);
  expect(error).toBe('');
}

/** Runs `body` with a started instance, and takes it away after. */
async function withInstance(
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

function run(incus: Endpoint, name: string, command: readonly string[], recorded = true) {
  return operate(incus, 'POST', `/1.0/instances/${name}/exec`, {
    command,
    environment: { SECRET: 'hunter2' },
    'record-output': recorded,
    'wait-for-websocket': false,
    interactive: false,
  });
}

const sh = (script: string) => ['/bin/sh', '-c', script];
const lifecycle = (action: string, name: string) => (event: SeenEvent) =>
  event.type === 'lifecycle' && event.metadata['action'] === action && event.metadata['name'] === name;
const ended = (id: string) => (event: SeenEvent) =>
  event.type === 'operation' &&
  event.metadata['id'] === id &&
  ['Success', 'Failure'].includes(event.metadata['status'] as string);
const actions = (reader: EventReader, name: string) =>
  reader.seen
    .filter(({ type, metadata }) => type === 'lifecycle' && metadata['name'] === name)
    .map(({ metadata }) => metadata['action']);
const missingInstance = (name: string) =>
  `Failed to fetch instance "${name}" in project "default": Instance not found`;

/** What was observed on Incus 6.0.4, as checks that hold there and on the simulator alike. */
export const scenarios: readonly Scenario[] = [
  {
    name: 'what is not there is 404, in an error envelope whose code is the HTTP status',
    async run(incus) {
      const missing: [string, string][] = [
        ['/1.0/nope', 'not found'],
        ['/1.0/projects/nope', 'Project not found'],
        ['/1.0/images/aliases/nope', 'Image alias not found'],
        ['/1.0/instances/nope', missingInstance('nope')],
        ['/1.0/instances/nope/state', missingInstance('nope')],
        ['/1.0/instances/nope/files?path=/x', missingInstance('nope')],
        ['/1.0/operations/00000000-0000-0000-0000-000000000000', 'Operation not found'],
        ['/1.0/operations/00000000-0000-0000-0000-000000000000/wait?timeout=1', 'Operation not found'],
      ];
      for (const [path, error] of missing) {
        const answer = await incus.request('GET', path);
        expect(answer.status, path).toBe(404);
        const body = envelope(answer);
        expect(body).toEqual({
          type: 'error',
          status: '',
          status_code: 0,
          operation: '',
          error_code: 404,
          error,
          metadata: null,
        });
      }
    },
  },
  {
    name: 'a missing project is 404 for an instance to make, but an empty list for those that are',
    async run(incus) {
      const made = await incus.request('POST', '/1.0/instances?project=nope', {
        body: definition(incus, 'x'),
      });
      expect([made.status, envelope(made).error]).toEqual([404, 'Failed loading project: Project not found']);
      const listed = await incus.request('GET', '/1.0/instances?recursion=1&project=nope');
      expect([listed.status, envelope(listed).metadata]).toEqual([200, []]);
    },
  },
  {
    name: 'create with start: one operation, instance-created, instance-started, and it runs',
    async run(incus) {
      const reader = await incus.events('type=lifecycle,operation&project=default');
      await withInstance(
        incus,
        async (name) => {
          const created = await reader.until(lifecycle('instance-created', name));
          expect(created.metadata).toMatchObject({
            source: `/1.0/instances/${name}`,
            context: { location: 'none', 'storage-pool': 'default', type: 'container' },
            requestor: { username: 'root', protocol: 'unix' },
            project: 'default',
          });
          await reader.until(lifecycle('instance-started', name));
          const operations = reader.seen.filter(
            ({ type, metadata }) => type === 'operation' && metadata['description'] === 'Creating instance',
          );
          expect(operations[0]).toMatchObject({
            project: 'default',
            metadata: {
              class: 'task',
              status: 'Pending',
              status_code: 105,
              resources: { instances: [`/1.0/instances/${name}`] },
              metadata: null,
              may_cancel: false,
              err: '',
              location: 'none',
            },
          });
          const one = envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata;
          expect(one).toMatchObject({
            name,
            status: 'Running',
            status_code: 103,
            type: 'container',
            project: 'default',
            profiles: ['default'],
            ephemeral: false,
            config: {
              'user.cijob.uid': 'u-1',
              'volatile.base_image': incus.image,
              'volatile.last_state.power': 'RUNNING',
            },
            devices: { 'pikaci-x': { type: 'disk', source: incus.source, path: '/x', readonly: 'true' } },
            expanded_devices: { root: { type: 'disk', path: '/', pool: 'default' } },
          });
          const list = envelope(await incus.request('GET', '/1.0/instances?recursion=1')).metadata;
          expect(list).toContainEqual(one);
          const state = envelope(await incus.request('GET', `/1.0/instances/${name}/state`)).metadata;
          expect(state).toMatchObject({ status: 'Running', status_code: 103 });
          expect((state as { processes: number }).processes).toBeGreaterThan(0);
          const removed = await incus.request('DELETE', `/1.0/instances/${name}`);
          expect([removed.status, envelope(removed).error]).toEqual([400, 'Instance is running']);
        },
        { devices: { 'pikaci-x': { type: 'disk', source: incus.source, path: '/x', readonly: 'true' } } },
      );
      reader.close();
    },
  },
  {
    name: 'an instance made but not yet started is Stopped, and says that it never ran',
    async run(incus) {
      const name = incus.unique('t');
      await operate(incus, 'POST', '/1.0/instances', definition(incus, name, { start: false }));
      const one = envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata;
      expect(one).toMatchObject({
        status: 'Stopped',
        status_code: 102,
        last_used_at: '1970-01-01T00:00:00Z',
        config: { 'volatile.apply_template': 'create' },
      });
      expect((one as { config: object }).config).not.toHaveProperty('volatile.last_state.power');
      const exec = await incus.request('POST', `/1.0/instances/${name}/exec`, {
        body: { command: ['true'] },
      });
      expect([exec.status, envelope(exec).error]).toEqual([400, 'Instance is not running']);
      const again = await operate(incus, 'DELETE', `/1.0/instances/${name}`);
      expect(again.error).toBe('');
    },
  },
  {
    name: 'a refused creation fails at once or in its operation, and leaves nothing',
    async run(incus) {
      const disk = (more: object) => ({ devices: { d: { type: 'disk', path: '/x', ...more } } });
      const refused: [more: Record<string, unknown>, code: number, error: string, status?: number][] = [
        [
          { source: { type: 'image', fingerprint: '0'.repeat(64) } },
          500,
          'Image not provided for instance creation',
        ],
        [{ source: { type: 'image', alias: 'nope' } }, 500, 'Image not provided for instance creation'],
        [
          { type: 'virtual-machine' },
          500,
          `Requested image's type "container" doesn't match instance type "virtual-machine"`,
        ],
        [
          { config: { nonsense: '1' } },
          500,
          'Failed creating instance record: Unknown configuration key: nonsense',
        ],
        [
          { config: { 'limits.memory': 'lots' } },
          500,
          'Failed creating instance record: Invalid value: lots',
        ],
        [
          disk({ source: '/no/such/path' }),
          500,
          'Failed creating instance record: Failed initializing instance: Failed add validation for device "d": Missing source path "/no/such/path" for disk "d"',
        ],
        [
          disk({ source: incus.source, 'io.bus': 'virtiofs' }),
          500,
          'Failed creating instance record: Failed initializing instance: Invalid devices: Device validation failed for "d": IO bus configuration cannot be applied to containers',
        ],
        [
          { devices: { root: { type: 'disk', path: '/', pool: 'nope' } } },
          404,
          'Failed creating instance record: Failed initializing instance: Failed loading storage pool: Storage pool not found',
        ],
        [{ profiles: ['nope'] }, 500, `Requested profile "nope" doesn't exist`, 500],
        [
          { name: 'under_score' },
          400,
          'Invalid instance name: Name can only contain alphanumeric and hyphen characters',
          400,
        ],
      ];
      for (const [more, code, error, status] of refused) {
        const name = incus.unique('t');
        const body = definition(incus, name, more);
        if (status === undefined) {
          const seen = await operate(incus, 'POST', '/1.0/instances', body);
          expect([seen.code, seen.error]).toEqual([code, error]);
          expect([seen.operation.status, seen.operation.status_code, seen.operation.err]).toEqual([
            'Failure',
            400,
            error,
          ]);
        } else {
          const answer = await incus.request('POST', '/1.0/instances', { body });
          expect([answer.status, envelope(answer).error]).toEqual([status, error]);
        }
        expect((await incus.request('GET', `/1.0/instances/${name}`)).status).toBe(404);
      }
    },
  },
  {
    name: 'a name that is taken fails the operation, and two creations at once make one instance',
    async run(incus) {
      const name = incus.unique('t');
      const both = await Promise.all(
        [1, 2].map(() => operate(incus, 'POST', '/1.0/instances', definition(incus, name))),
      );
      const errors = both.map(({ error }) => error).sort();
      expect(errors[0]).toBe('');
      expect(errors[1]).toMatch(/Instance is busy running a "create" operation|UNIQUE constraint failed/);
      const third = await operate(incus, 'POST', '/1.0/instances', definition(incus, name));
      expect([third.code, third.error]).toEqual([
        500,
        'Failed creating instance record: Add instance info to the database: Failed to create "instances" entry: UNIQUE constraint failed: instances.project_id, instances.name',
      ]);
      await remove(incus, name);
    },
  },
  {
    name: 'start, stop, restart: what is so already fails the operation; each change is one event',
    async run(incus) {
      const reader = await incus.events('type=lifecycle&project=default');
      await withInstance(incus, async (name) => {
        const state = `/1.0/instances/${name}/state`;
        const change = (action: string) => operate(incus, 'PUT', state, { action, force: true });
        expect(await change('start')).toMatchObject({ code: 500, error: 'The instance is already running' });
        expect(await change('restart')).toMatchObject({ error: '' });
        expect(await change('stop')).toMatchObject({ error: '' });
        expect(await change('stop')).toMatchObject({ code: 400, error: 'The instance is already stopped' });
        expect(await change('restart')).toMatchObject({
          code: 400,
          error: 'The instance is already stopped',
        });
        const off = envelope(await incus.request('GET', state)).metadata;
        expect(off).toMatchObject({
          status: 'Stopped',
          status_code: 102,
          pid: 0,
          processes: 0,
          network: null,
        });
        expect(await change('start')).toMatchObject({ error: '' });
        const bogus = await incus.request('PUT', state, { body: { action: 'fly' } });
        expect([bogus.status, envelope(bogus).error]).toEqual([400, "Unknown action: 'fly'"]);
        await reader.until(() => actions(reader, name).length >= 5);
        expect(actions(reader, name)).toEqual([
          'instance-created',
          'instance-started',
          'instance-restarted',
          'instance-stopped',
          'instance-started',
        ]);
      });
      reader.close();
    },
  },
  {
    name: 'a recorded exec ends with its code in the operation; its environment shows nowhere',
    async run(incus) {
      const reader = await incus.events('type=lifecycle,operation&project=default');
      await withInstance(incus, async (name) => {
        const url = `/1.0/instances/${name}`;
        const cases: [command: string[], code: number, error: string][] = [
          [['true'], 0, ''],
          [sh('exit 3'), 3, ''],
          [sh('kill -9 $$'), 137, ''],
          [sh('kill -15 $$'), 143, ''],
          [['/nope'], 127, 'Command not found'],
          [['env', 'A=1', '/nope'], 127, 'Command not found'],
          [sh('exit 127'), 127, 'Command not found'],
          [sh('exit 126'), 126, 'Command not executable'],
          [['/etc/passwd'], 126, 'Command not executable'],
        ];
        for (const [command, code, error] of cases) {
          const seen = await run(incus, name, command);
          expect(seen.error, command.join(' ')).toBe(error);
          if (error !== '') expect(seen.code).toBe(400);
          const { operation } = seen;
          expect(operation).toMatchObject({
            class: 'task',
            description: 'Executing command',
            status: error === '' ? 'Success' : 'Failure',
            status_code: error === '' ? 200 : 400,
            resources: { containers: [url], instances: [url] },
            may_cancel: false,
            err: error,
          });
          expect(operation.metadata).toEqual({
            return: code,
            output: {
              '1': `${url}/logs/exec-output/exec_${seen.id}.stdout`,
              '2': `${url}/logs/exec-output/exec_${seen.id}.stderr`,
            },
          });
          await reader.until(ended(seen.id));
        }
        const bare = await run(incus, name, sh('exit 4'), false);
        expect(bare.operation.metadata).toEqual({ return: 4 });
        expect((await run(incus, name, [])).error).toBe('Failed to retrieve PID of executing child process');
        const event = reader.seen.find(lifecycle('instance-exec', name));
        expect(event?.metadata['context']).toEqual({ command: ['true'] });
        expect(JSON.stringify(reader.seen)).not.toContain('hunter2');
        const listed = await incus.request('GET', '/1.0/operations?recursion=1');
        expect(listed.text).not.toContain('hunter2');
      });
      reader.close();
    },
  },
  {
    name: 'while an exec runs, its operation is listed under running, without metadata, and cannot be cancelled',
    async run(incus) {
      const reader = await incus.events('type=lifecycle&project=default');
      await withInstance(incus, async (name) => {
        const begun = envelope(
          await incus.request('POST', `/1.0/instances/${name}/exec`, {
            body: { command: ['sleep', '60'], 'record-output': true },
          }),
        );
        const { operation } = begun;
        await reader.until(lifecycle('instance-exec', name));
        const listed = envelope(await incus.request('GET', '/1.0/operations?recursion=1')).metadata as Record<
          string,
          OperationSeen[]
        >;
        expect(listed['running']?.find(({ id }) => operation.endsWith(id))).toMatchObject({
          status: 'Running',
          status_code: 103,
          metadata: null,
        });
        const cancelled = await incus.request('DELETE', operation);
        expect([cancelled.status, envelope(cancelled).error]).toEqual([
          400,
          "This operation can't be cancelled",
        ]);
        const early = await incus.request('GET', `${operation}/wait?timeout=0`);
        expect([early.status, envelope(early).error]).toEqual([200, 'context deadline exceeded']);
        await operate(incus, 'PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
        const over = envelope(await incus.request('GET', `${operation}/wait?timeout=10`));
        expect((over.metadata as OperationSeen).metadata).toMatchObject({ return: 137 });
      });
      reader.close();
    },
  },
  {
    name: 'an attached exec prints to its WebSockets, ends them with it, and ends when they are closed',
    async run(incus) {
      await withInstance(incus, async (name) => {
        const attach = async (command: readonly string[]) => {
          const begun = await incus.request('POST', `/1.0/instances/${name}/exec`, {
            body: { command, environment: { MODE: 'fast' }, 'wait-for-websocket': true, interactive: false },
          });
          const operation = envelope(begun).metadata as OperationSeen;
          expect(operation).toMatchObject({
            class: 'websocket',
            status: 'Running',
            resources: { instances: [`/1.0/instances/${name}`] },
            metadata: { command, interactive: false, environment: { MODE: 'fast', HOME: '/root' } },
          });
          const fds = operation.metadata?.['fds'] as Record<string, string>;
          expect(Object.keys(fds).sort()).toEqual(['0', '1', '2', 'control']);
          const base = `/1.0/operations/${operation.id}`;
          await expect(incus.stream(`${base}/websocket?secret=nope`)).rejects.toThrow('403');
          const streams = [];
          for (const fd of ['0', '1', '2'])
            streams.push(await incus.stream(`${base}/websocket?secret=${fds[fd] ?? ''}`));
          const over = async () => {
            const waited = await incus.request('GET', `${base}/wait?timeout=10`);
            return (envelope(waited).metadata as OperationSeen).metadata?.['return'];
          };
          return { streams, over };
        };
        const short = await attach(sh('echo out; exit 3'));
        await Promise.all(short.streams.map(({ closed }) => closed));
        expect(short.streams.map((stream) => stream.text())).toEqual(['', 'out\n', '']);
        expect(await short.over()).toBe(3);
        await run(incus, name, sh('echo one > /artifacts/log'));
        const tail = await attach(['tail', '-c', '+3', '-F', '/artifacts/log']);
        await expect.poll(() => tail.streams[1]?.text(), { timeout: 5_000 }).toBe('e\n');
        await run(incus, name, sh('echo two >> /artifacts/log'));
        await expect.poll(() => tail.streams[1]?.text(), { timeout: 5_000 }).toBe('e\ntwo\n');
        for (const stream of tail.streams) stream.terminate();
        expect(await tail.over()).toBe(137);
      });
    },
  },
  {
    name: 'files: HEAD tells what a path is, GET reads it, a link is shown and not followed',
    async run(incus) {
      await withInstance(incus, async (name) => {
        await run(
          incus,
          name,
          sh(
            [
              'mkdir -p /artifacts/d',
              'echo 0123456789 > /artifacts/f',
              ': > /artifacts/empty',
              'ln -s f /artifacts/link',
              'ln -s nowhere /artifacts/dangling',
              'ln -s /artifacts /elsewhere',
              'mkfifo /artifacts/fifo',
            ].join('; '),
          ),
        );
        const reader = await incus.events('type=lifecycle&project=default');
        const url = (path: string) => `/1.0/instances/${name}/files?path=${encodeURIComponent(path)}`;
        const heads: [path: string, status: number, type?: string, length?: string][] = [
          ['/artifacts/f', 200, 'file', '11'],
          ['/elsewhere/f', 200, 'file', '11'],
          ['/artifacts/empty', 200, 'file', '0'],
          ['/artifacts/fifo', 200, 'file', '0'],
          ['/artifacts/d', 200, 'directory'],
          ['/artifacts/link', 200, 'symlink'],
          ['/artifacts/dangling', 200, 'symlink'],
          ['/artifacts/missing', 404],
        ];
        for (const [path, status, type, length] of heads) {
          const head = await incus.request('HEAD', url(path));
          expect(head.status, path).toBe(status);
          expect(head.headers['x-incus-type'], path).toBe(type);
          if (length !== undefined) expect(head.headers['content-length'], path).toBe(length);
        }
        const file = await incus.request('GET', url('/artifacts/f'));
        expect(file).toMatchObject({ status: 200, text: '0123456789\n' });
        expect(file.headers).toMatchObject({
          'x-incus-type': 'file',
          'x-incus-uid': '0',
          'x-incus-gid': '0',
          'x-incus-mode': '0644',
          'content-type': 'application/octet-stream',
          'accept-ranges': 'bytes',
        });
        const ranges: [range: string, status: number, text: string, said: string][] = [
          ['bytes=0-3', 206, '0123', 'bytes 0-3/11'],
          ['bytes=8-', 206, '89\n', 'bytes 8-10/11'],
          ['bytes=-3', 206, '89\n', 'bytes 8-10/11'],
          ['bytes=-99', 206, '0123456789\n', 'bytes 0-10/11'],
          ['bytes=0-99', 206, '0123456789\n', 'bytes 0-10/11'],
          ['bytes=11-', 416, 'invalid range: failed to overlap\n', 'bytes */11'],
        ];
        for (const [range, status, text, said] of ranges) {
          const part = await incus.request('GET', url('/artifacts/f'), { headers: { range } });
          expect(part.status, range).toBe(status);
          expect(part.text, range).toBe(text);
          expect(part.headers['content-range'], range).toBe(said);
        }
        const link = await incus.request('GET', url('/artifacts/link'));
        expect([link.headers['x-incus-type'], link.text]).toEqual(['symlink', '/artifacts/f']);
        const directory = envelope(await incus.request('GET', url('/artifacts/d')));
        expect(directory).toMatchObject({ type: 'sync', metadata: [] });
        const gone = await incus.request('GET', url('/artifacts/missing'));
        expect([gone.status, envelope(gone).error]).toEqual([404, 'Not Found']);
        const nothing = await incus.request('GET', `/1.0/instances/${name}/files`);
        expect([nothing.status, envelope(nothing).error]).toEqual([400, 'Missing path argument']);
        const event = await reader.until(lifecycle('instance-file-retrieved', name));
        expect(event.metadata).toMatchObject({ context: { path: '/artifacts/f' } });
        expect(event.metadata).not.toHaveProperty('requestor');
        reader.close();
      });
    },
  },
  {
    name: 'a GET of a FIFO is never answered; the instance can still be stopped and deleted',
    async run(incus) {
      await withInstance(incus, async (name) => {
        await run(incus, name, ['mkfifo', '/artifacts/fifo']);
        const got = incus.request('GET', `/1.0/instances/${name}/files?path=/artifacts/fifo`, {
          abortAfter: 300,
        });
        await expect(got).rejects.toThrow();
        const other = await incus.request('GET', `/1.0/instances/${name}/files?path=/etc/passwd`);
        expect(other.status).toBe(200);
      });
    },
  },
  {
    name: 'a power off from inside is instance-shutdown, a reboot instance-restarted, neither by anyone',
    async run(incus) {
      const reader = await incus.events('type=lifecycle,operation&project=default');
      await withInstance(incus, async (name) => {
        const waiting = envelope(
          await incus.request('POST', `/1.0/instances/${name}/exec`, {
            body: { command: ['sleep', '60'], 'record-output': true },
          }),
        );
        await run(incus, name, ['/bin/busybox', 'reboot', '-f']);
        const rebooted = await reader.until(lifecycle('instance-restarted', name));
        expect(rebooted.metadata).not.toHaveProperty('requestor');
        const id = waiting.operation.slice(waiting.operation.lastIndexOf('/') + 1);
        const killed = await reader.until(ended(id));
        expect(killed.metadata['metadata']).toMatchObject({ return: 137 });
        expect(envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata).toMatchObject({
          status: 'Running',
        });
        await run(incus, name, ['/bin/busybox', 'poweroff', '-f']);
        const down = await reader.until(lifecycle('instance-shutdown', name));
        expect(down.metadata).not.toHaveProperty('requestor');
        expect(envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata).toMatchObject({
          status: 'Stopped',
          config: { 'volatile.last_state.power': 'STOPPED' },
        });
        const files = await incus.request('GET', `/1.0/instances/${name}/files?path=/etc/passwd`);
        expect(files.status, 'a stopped container can still be read').toBe(200);
      });
      reader.close();
    },
  },
  {
    name: 'a change of config or devices is instance-updated',
    async run(incus) {
      const reader = await incus.events('type=lifecycle&project=default');
      await withInstance(incus, async (name) => {
        const changed = await incus.request('PATCH', `/1.0/instances/${name}`, {
          body: { config: { 'user.x': '1' } },
        });
        expect([changed.status, envelope(changed).metadata]).toEqual([200, {}]);
        await reader.until(lifecycle('instance-updated', name));
        expect(envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata).toMatchObject({
          config: { 'user.x': '1', 'user.cijob.uid': 'u-1' },
        });
      });
      reader.close();
    },
  },
  {
    name: 'a restricted project refuses a source outside, a link that leads out, and shift; limits count',
    async run(incus) {
      const project = incus.unique('p');
      await incus.addProject(project, {
        'features.images': 'false',
        'features.profiles': 'true',
        restricted: 'true',
        'restricted.devices.disk': 'allow',
        'restricted.devices.disk.paths': incus.parent,
        'limits.instances': '1',
      });
      const path = `/1.0/instances?project=${project}`;
      const name = incus.unique('t');
      const disk = (source: string, more: object = {}) =>
        definition(incus, name, {
          devices: { d: { type: 'disk', path: '/x', source, readonly: 'true', ...more } },
        });
      const at = `/1.0/instances/${name}?project=${project}`;
      for (const source of ['/etc', `${incus.parent}/../etc`]) {
        const outside = await incus.request('POST', path, { body: disk(source) });
        expect([outside.status, envelope(outside).error]).toEqual([
          500,
          `Failed checking if instance creation allowed: Invalid device "d" on container "${name}" of project "${project}": Disk source path "${source}" not allowed`,
        ]);
      }
      const refused: [body: Record<string, unknown>, error: string][] = [
        [
          disk(incus.linkOut),
          `Failed to start device "d": Source path "${incus.linkOut}" resolves outside of restricted parent source path "${incus.parent}"`,
        ],
        [
          disk(incus.source, { shift: 'true' }),
          'Failed to start device "d": The "shift" property cannot be used with a restricted source path',
        ],
      ];
      for (const [body, error] of refused) {
        expect((await operate(incus, 'POST', path, body)).error).toBe(error);
        const left = envelope(await incus.request('GET', at)).metadata;
        expect(left, 'what did not start is left behind').toMatchObject({ status: 'Stopped' });
        await operate(incus, 'DELETE', at);
      }
      const reader = await incus.events(`type=lifecycle&project=${project}`);
      expect((await operate(incus, 'POST', path, disk(incus.source))).error).toBe('');
      const created = await reader.until(lifecycle('instance-created', name));
      expect(created).toMatchObject({ project, metadata: { source: at, project } });
      reader.close();
      const more = await incus.request('POST', path, { body: definition(incus, incus.unique('t')) });
      expect([more.status, envelope(more).error]).toEqual([
        500,
        `Reached maximum number of instances in project "${project}"`,
      ]);
      const privileged = await incus.request('GET', `/1.0/instances?project=default`);
      expect(privileged.text).not.toContain(name);
      await remove(incus, name, project);
    },
  },
  {
    name: 'the event stream refuses a missing project, an unknown type, and two answers to "which project"',
    async run(incus) {
      const refused: [query: string, status: string][] = [
        ['type=lifecycle&project=nope', '404'],
        ['type=bogus', '400'],
        ['type=lifecycle&project=default&all-projects=true', '400'],
      ];
      for (const [query, status] of refused) await expect(incus.events(query), query).rejects.toThrow(status);
    },
  },
];

/** How to kill an Incus without warning and start it again. */
export interface Killer {
  kill(): Promise<void>;
  restart(): Promise<void>;
}

/** What a kill of incusd does, held against both. */
export const killScenario = {
  name: 'a killed incusd cuts every connection and forgets its operations; containers and their commands go on',
  async run(incus: Endpoint, killer: Killer): Promise<void> {
    const reader = await incus.events('type=lifecycle,operation&project=default');
    const name = incus.unique('t');
    expect((await operate(incus, 'POST', '/1.0/instances', definition(incus, name))).error).toBe('');
    const begun = await incus.request('POST', `/1.0/instances/${name}/exec`, {
      body: {
        command: sh(': > /artifacts/begun; sleep 2; echo done > /artifacts/done'),
        'record-output': true,
      },
    });
    await reader.until(lifecycle('instance-exec', name));
    const { operation } = envelope(begun);
    const waiting = expect(incus.request('GET', `${operation}/wait?timeout=60`)).rejects.toThrow();
    // Long enough for the request to be on its way: otherwise it is refused, which is as good.
    await incus.request('GET', operation);
    const half = incus.unique('t');
    const creating = await incus.request('POST', '/1.0/instances', { body: definition(incus, half) });
    expect(creating.status).toBe(202);
    await reader.until(lifecycle('instance-created', half));
    await killer.kill();
    await waiting;
    await expect(incus.request('GET', '/1.0')).rejects.toThrow();
    await killer.restart();
    expect((await incus.request('GET', operation)).status).toBe(404);
    const after = envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata;
    expect(after).toMatchObject({ status: 'Running' });
    const done = `/1.0/instances/${name}/files?path=/artifacts/done`;
    await expect
      .poll(async () => (await incus.request('GET', done)).status, { timeout: 10_000, interval: 200 })
      .toBe(200);
    const unfinished = envelope(await incus.request('GET', `/1.0/instances/${half}`)).metadata;
    expect(unfinished).toMatchObject({ status: 'Stopped', last_used_at: '1970-01-01T00:00:00Z' });
    expect((unfinished as { config: object }).config).not.toHaveProperty('volatile.apply_template');
    const again = await operate(incus, 'POST', '/1.0/instances', definition(incus, half));
    expect(again.error).toContain('UNIQUE constraint failed');
    expect((await operate(incus, 'DELETE', `/1.0/instances/${half}`)).error).toBe('');
    await remove(incus, name);
  },
};
