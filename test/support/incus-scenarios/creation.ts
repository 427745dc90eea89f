import { expect, vi } from 'vitest';
import { startErrors } from '../../../controller/incus/start-errors.ts';
import type { Scenario } from './scenario.ts';
import { envelope, operate, definition, remove, withInstance, lifecycle } from './steps.ts';

/** Making instances. */
export const creation: readonly Scenario[] = [
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
          // Events come out of order now and then.
          const pending = operations.find(({ metadata }) => metadata['status'] === 'Pending');
          expect(pending).toMatchObject({
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
    name: 'an instance that does not start is left, as if it had run, and only its log says why',
    async run(incus) {
      const disk = (source: string, path: string) => ({ type: 'disk', source, path, readonly: 'true' });
      const outer = disk(incus.parent, '/workspace/outer');
      const cases: [devices: Record<string, object>, why: RegExp][] = [
        [
          { outer, inner: disk(incus.source, '/workspace/outer/missing') },
          /Read-only file system - Failed to create directory ".*\/workspace\/outer\/missing"$/,
        ],
        [
          { outer, inner: disk(incus.source, '/workspace/outer/link') },
          /Too many levels of symbolic links - link in .*\/workspace\/outer\/link was a symbolic link!$/,
        ],
        [
          { inner: disk(incus.source, incus.imageLink) },
          /Too many levels of symbolic links - \S+ in \S+ was a symbolic link!$/,
        ],
      ];
      for (const [devices, why] of cases) {
        const name = incus.unique('t');
        const reader = await incus.events('type=lifecycle&project=default');
        const seen = await operate(incus, 'POST', '/1.0/instances', definition(incus, name, { devices }));
        expect(seen.error).toMatch(
          new RegExp(`^Failed to run: \\S+/incusd forkstart ${name} \\S+ \\S+/lxc.conf: exit status 1$`),
        );
        const one = envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata as {
          config: object;
          created_at: string;
          last_used_at: string;
        };
        expect(one).toMatchObject({ status: 'Stopped', config: { 'volatile.last_state.power': 'RUNNING' } });
        expect(one.config).not.toHaveProperty('volatile.apply_template');
        expect(Date.parse(one.created_at)).toBeGreaterThanOrEqual(Date.parse(seen.operation.created_at));
        expect(Date.parse(one.last_used_at)).toBeGreaterThanOrEqual(Date.parse(one.created_at));
        const log = await incus.request('GET', `/1.0/instances/${name}/logs/lxc.log`);
        expect(log.status).toBe(200);
        const [first] = startErrors('container', log.text);
        expect(first).toMatch(why);
        // For a moment Incus may take it for one that runs.
        await vi.waitFor(() => operate(incus, 'DELETE', `/1.0/instances/${name}`), { timeout: 10_000 });
        await reader.until(lifecycle('instance-deleted', name));
        expect(reader.seen.filter(lifecycle('instance-started', name))).toEqual([]);
        expect((await incus.request('GET', `/1.0/instances/${name}/logs/lxc.log`)).status).toBe(404);
        reader.close();
      }
    },
  },
  {
    name: 'a device that is not there fails the start, and the answer says so',
    async run(incus) {
      const name = incus.unique('t');
      const devices = {
        g: { type: 'unix-char', source: '/dev/no-such-device', path: '/dev/no-such-device' },
      };
      const seen = await operate(incus, 'POST', '/1.0/instances', definition(incus, name, { devices }));
      expect(seen.error).toBe(
        `Failed to start device "g": The required device path doesn't exist and the major and minor settings are not specified`,
      );
      expect(envelope(await incus.request('GET', `/1.0/instances/${name}`)).metadata).toMatchObject({
        status: 'Stopped',
        last_used_at: '1970-01-01T00:00:00Z',
      });
      await operate(incus, 'DELETE', `/1.0/instances/${name}`);
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
];
