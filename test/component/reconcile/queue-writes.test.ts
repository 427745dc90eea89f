import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { CiJob } from '../../../controller/api/cijob.ts';
import { apiVersion } from '../../../controller/api/meta.ts';
import { ModelApi } from '../../support/model/api.ts';
import { ModelController } from '../../support/model/controller.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/*
 * The real engine, reconciler, store and pool. No host is there, so every job waits; one leaves each second, so every
 * place changes each second, and every job is looked at each second.
 */

const jobs = 200;
const minutes = 3;

test('a queue that moves each second costs one write a job and minute, also when the controller is replaced', async () => {
  const api = new ModelApi();
  const clock = new ManualClock();
  const start = () =>
    new ModelController({
      name: 'controller',
      api,
      clock,
      send: (_words, effect) => Promise.resolve(effect()),
      hosts: [],
      prompt: true,
    });
  for (let index = 0; index < jobs; index += 1) {
    const metadata = { name: `job-${String(index).padStart(3, '0')}`, namespace: 'ci', uid: `uid-${index}` };
    const creationTimestamp = new Date(clock.now()).toISOString();
    const spec = { command: 'true', instance: { image: 'image' } };
    api.put(CiJob.parse({ apiVersion, kind: 'CiJob', metadata: { ...metadata, creationTimestamp }, spec }));
  }
  let controller = start();
  const settle = async () => {
    for (let turn = 0; turn < 10; turn += 1) await setImmediate();
  };
  await settle();
  for (let second = 1; second < minutes * 60; second += 1) {
    clock.advance(1000);
    const [first] = api.jobs.keys();
    api.delete(first ?? '', clock.now());
    if (second === 90) {
      await controller.crash();
      controller = start();
    }
    for (const key of api.jobs.keys()) controller.engine.wake(key);
    await settle();
  }
  expect(controller.errors).toEqual([]);
  const stillThere = [...api.jobs.keys()];
  expect(stillThere).toHaveLength(jobs - minutes * 60 + 1);
  for (const key of stillThere) {
    const writes = api.writes.filter((write) => write === `${key} status`);
    expect(writes, key).toHaveLength(minutes);
  }
  await controller.crash();
});
