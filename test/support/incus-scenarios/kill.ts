import { expect } from 'vitest';
import type { Endpoint } from './scenario.ts';
import { envelope, operate, definition, remove, sh, lifecycle } from './steps.ts';

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
