import { once } from 'node:events';
import { mkdir, symlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { longestIdle } from '../../controller/incus/http.ts';
import { speakTo } from '../support/incus-endpoint.ts';
import { scenarios } from '../support/incus-scenarios/all.ts';
import { killScenario } from '../support/incus-scenarios/kill.ts';
import type { Endpoint } from '../support/incus-scenarios/scenario.ts';
import { Incusd } from '../support/incusd.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { clearAway } from '../support/left-under.ts';
import { guestAliases, importGuestImages } from './support/shared-incus.ts';

let incusd: Incusd;
let directory: string;
let endpoint: Endpoint;

beforeAll(async () => {
  incusd = await Incusd.start();
  await importGuestImages(incusd);
  directory = await makeTempDir('truth');
  const parent = join(directory, 'allowed');
  const source = join(parent, 'source');
  const linkOut = join(parent, 'link');
  await mkdir(source, { recursive: true, mode: 0o755 });
  await symlink('/etc', linkOut);
  const speak = speakTo(() => connect(incusd.socketPath));
  const alias = await speak.request('GET', `/1.0/images/aliases/${encodeURIComponent(guestAliases.busybox)}`);
  const image = (JSON.parse(alias.text) as { metadata: { target: string } }).metadata.target;
  endpoint = {
    ...speak,
    image,
    imageLink: '/usr/bin/bash',
    source,
    linkOut,
    parent,
    addProject: async (name, config) => {
      const made = await speak.request('POST', '/1.0/projects', { body: { name, config } });
      expect(made.status, made.text).toBeLessThan(300);
      await incusd.addRootDisk(name);
    },
  };
});
afterAll(async () => {
  await incusd.stop();
  await clearAway(directory);
});

test('a connection over which nothing is asked is closed, but not before the controller would no longer use it', async () => {
  const idle = connect(incusd.socketPath);
  idle.write('GET /1.0 HTTP/1.1\r\nhost: incus\r\n\r\n');
  await once(idle, 'data');
  const since = performance.now();
  idle.resume();
  await once(idle, 'end');
  expect(performance.now() - since).toBeGreaterThan(longestIdle);
});

describe('the real Incus does what the simulated one is made to do', () => {
  for (const scenario of scenarios) test(scenario.name, () => scenario.run(endpoint));
  test(killScenario.name, () =>
    killScenario.run(endpoint, {
      kill: () => incusd.kill9(),
      restart: () => incusd.restart(),
    }),
  );
});
