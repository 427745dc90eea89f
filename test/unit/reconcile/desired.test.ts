import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CiJob } from '../../../controller/api/cijob.ts';
import { apiVersion } from '../../../controller/api/meta.ts';
import { requestOf } from '../../../controller/incus/commands.ts';
import { createCommand, definitionOf } from '../../../controller/reconcile/desired.ts';

/* What every instance is made with, whatever its job says or leaves unsaid. */

const size = fc
  .tuple(fc.integer({ min: 1, max: 9999 }), fc.constantFrom('MiB', 'GiB', 'MB', 'GB'))
  .map(([number, unit]) => `${number}${unit}`);
const word = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/);

const instances = fc.record(
  {
    type: fc.constantFrom('VirtualMachine', 'Container'),
    image: fc.constant('image'),
    cpu: fc.integer({ min: 1, max: 64 }),
    memory: size,
    rootDisk: size,
    profiles: fc.uniqueArray(word, { maxLength: 3 }),
  },
  { requiredKeys: ['image'] },
);

/** Jobs as the API server stores them; names of mounts are ones that might be taken for the root disk's. */
const jobs = fc
  .record({
    instance: instances,
    runAsRoot: fc.boolean(),
    mounts: fc.uniqueArray(fc.constantFrom('root', 'eth0', 'disk', 'snapshot'), { maxLength: 4 }),
    env: fc.uniqueArray(fc.constantFrom('LIMITS_CPU', 'A'), { maxLength: 2 }),
  })
  .map(({ instance, runAsRoot, mounts, env }) =>
    CiJob.parse({
      apiVersion,
      kind: 'CiJob',
      metadata: { name: 'job', namespace: 'ci', uid: 'uid', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: {
        command: 'true',
        instance,
        runAsRoot,
        mounts: mounts.map((name) => ({
          name,
          source: `/sources/${name}`,
          ...(name === 'snapshot' ? {} : { path: `/mnt/${name}` }),
        })),
        env: env.map((name) => ({ name, value: '0' })),
      },
    }),
  );

const surroundings = { controllerId: 'us', storagePool: 'pool' };
const nothing = { fingerprint: 'f', sources: {} };

describe('the instance of any job', () => {
  test('has limits on processors, memory and disk, and never one that Incus reads as none', () => {
    fc.assert(
      fc.property(jobs, fc.integer({ min: 1, max: 11 }), (job, attempt) => {
        const { config, devices } = definitionOf(job, attempt, nothing, surroundings);
        expect(config['limits.cpu']).toMatch(/^[1-9]\d*$/);
        expect(config['limits.memory']).toMatch(/^[1-9]\d*[KMGT]i?B$/);
        // Set on the instance itself, so that no profile decides it.
        expect(devices['root']).toMatchObject({ type: 'disk', path: '/', pool: 'pool' });
        expect(devices['root']?.['size']).toMatch(/^[1-9]\d*[KMGT]i?B$/);
      }),
    );
  });

  test('has what its job asks for, where it asks for something', () => {
    fc.assert(
      fc.property(jobs, (job) => {
        const { config, devices } = definitionOf(job, 1, nothing, surroundings);
        expect(config).toMatchObject({
          'limits.cpu': String(job.spec.instance.cpu),
          'limits.memory': job.spec.instance.memory,
        });
        expect(devices['root']).toMatchObject({ size: job.spec.instance.rootDisk });
      }),
    );
  });

  test('has a limit on processes in a container, and no secure boot in a virtual machine', () => {
    fc.assert(
      fc.property(jobs, (job) => {
        const { type, config } = definitionOf(job, 1, nothing, surroundings);
        if (job.spec.instance.type === 'Container') {
          expect(type).toBe('container');
          expect(config['limits.processes']).toMatch(/^[1-9]\d*$/);
          expect(config).not.toHaveProperty('security.secureboot');
        } else {
          expect(type).toBe('virtual-machine');
          expect(config['security.secureboot']).toBe('false');
          expect(config).not.toHaveProperty('limits.processes');
        }
        expect(Object.keys(config).filter((key) => key.startsWith('security.'))).toEqual(
          type === 'container' ? [] : ['security.secureboot'],
        );
      }),
    );
  });

  test('has only disks, all but the root read-only, and does not start by itself', () => {
    fc.assert(
      fc.property(jobs, (job) => {
        const { config, devices } = definitionOf(job, 1, nothing, surroundings);
        expect(config['boot.autostart']).toBe('false');
        expect(Object.keys(devices).sort()).toEqual(
          ['root', ...job.spec.mounts.map(({ name }) => `pikaci-${name}`)].sort(),
        );
        for (const [name, device] of Object.entries(devices)) {
          expect(device['type']).toBe('disk');
          if (name !== 'root') expect(device['readonly']).toBe('true');
        }
      }),
    );
  });

  test('is asked for with all of that in one request', () => {
    fc.assert(
      fc.property(jobs, (job) => {
        const create = createCommand(job, 1, nothing, surroundings);
        const { body } = requestOf(create, 'project');
        const { config, devices } = create.definition;
        expect(JSON.parse(JSON.stringify(body))).toMatchObject({ config, devices, start: true });
      }),
    );
  });
});
