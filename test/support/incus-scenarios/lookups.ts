import { expect } from 'vitest';
import type { Scenario } from './scenario.ts';
import { envelope, definition, missingInstance } from './steps.ts';

/** What is asked for and is not there. */
export const lookups: readonly Scenario[] = [
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
  {
    name: 'the machine and a storage pool say how much they have',
    async run(incus) {
      const told = async (path: string) => envelope(await incus.request('GET', path)).metadata;
      const some = expect.toSatisfy((total: number) => Number.isInteger(total) && total > 0) as number;
      expect(await told('/1.0/resources')).toMatchObject({ cpu: { total: some }, memory: { total: some } });
      expect(await told('/1.0/storage-pools/default/resources')).toMatchObject({ space: { total: some } });
      // Not 404.
      const missing = await incus.request('GET', '/1.0/storage-pools/nope/resources');
      expect([missing.status, envelope(missing).error]).toEqual([500, 'Storage pool not found']);
    },
  },
  {
    name: 'storage pools, profiles, networks and their ACLs are listed as a whole',
    async run(incus) {
      const listed = async (collection: string) => {
        const answer = await incus.request('GET', `/1.0/${collection}?recursion=1&project=default`);
        return envelope(answer).metadata as { name: string }[];
      };
      expect(await listed('storage-pools')).toContainEqual(
        expect.objectContaining({ name: 'default', driver: 'dir' }),
      );
      expect(await listed('profiles')).toContainEqual(
        expect.objectContaining({
          name: 'default',
          devices: { root: { type: 'disk', path: '/', pool: 'default' } },
        }),
      );
      // A real one also lists the machine's own interfaces.
      for (const network of await listed('networks')) expect(network).toMatchObject({ managed: false });
      expect(await listed('network-acls')).toEqual([]);
    },
  },
];
