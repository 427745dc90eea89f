import { expect } from 'vitest';
import type { OperationSeen, Scenario } from './scenario.ts';
import { envelope, operate, withInstance, run, sh, lifecycle, ended } from './steps.ts';

/** Running commands in guests. */
export const execs: readonly Scenario[] = [
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
];
