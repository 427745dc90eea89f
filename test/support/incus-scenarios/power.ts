import { expect } from 'vitest';
import type { Scenario } from './scenario.ts';
import { envelope, operate, withInstance, run, lifecycle, ended, actions } from './steps.ts';

/** Starting, stopping and changing instances, from outside and from inside. */
export const power: readonly Scenario[] = [
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
];
