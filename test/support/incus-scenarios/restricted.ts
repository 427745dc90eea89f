import { expect } from 'vitest';
import type { Scenario } from './scenario.ts';
import { envelope, operate, definition, remove, lifecycle } from './steps.ts';

/** What a restricted project refuses. */
export const restricted: readonly Scenario[] = [
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
];
