import { expect } from 'vitest';
import type { ByteStream, Endpoint, OperationSeen, Scenario } from './scenario.ts';
import { envelope, sh, withInstance } from './steps.ts';

/** Commands that somebody types into: with a terminal, or with three plain streams. */
export const interactive: readonly Scenario[] = [
  {
    name: 'an exec with a terminal has one stream both ways, a size that can change, and ends with its code',
    async run(incus) {
      await withInstance(incus, async (name) => {
        const terminal = { interactive: true, width: 100, height: 30 };
        const size = await attach(incus, name, sh('stty size; exit 7'), terminal);
        expect(Object.keys(size.streams).sort()).toEqual(['0', 'control']);
        // Control goes with the command; the terminal waits for the other side to let go of it.
        await size.streams['control']?.closed;
        await expect.poll(size.text).toBe('30 100\r\n');
        size.streams['0']?.terminate();
        expect(await size.over()).toBe(7);

        const copy = await attach(incus, name, sh('cat; echo end'), terminal);
        copy.streams['0']?.send(Buffer.from('one\r'));
        // What is typed is shown by the terminal, and printed by the command.
        await expect.poll(copy.text).toBe('one\r\none\r\n');
        copy.streams['0']?.send(Buffer.from('\u0004'));
        await expect.poll(copy.text).toBe('one\r\none\r\nend\r\n');
        copy.streams['0']?.terminate();
        expect(await copy.over()).toBe(0);

        const sizes = await attach(incus, name, sh('while read -r line; do stty size; done'), terminal);
        const args = { width: '120', height: '40' };
        sizes.streams['control']?.send(JSON.stringify({ command: 'window-resize', args }));
        // The two sockets are read side by side: it is asked until the answer is another.
        const asked = () => {
          sizes.streams['0']?.send(Buffer.from('\r'));
          return sizes.text();
        };
        await expect.poll(asked).toContain('40 120\r\n');
        sizes.streams['0']?.send(Buffer.from('\u0004'));
        await sizes.streams['control']?.closed;
        sizes.streams['0']?.terminate();
      });
    },
  },
  {
    name: 'an exec with a terminal ends when its control is closed',
    async run(incus) {
      await withInstance(incus, async (name) => {
        const begun = await attach(incus, name, sh('echo up; cat'), { interactive: true });
        await expect.poll(begun.text).toBe('up\r\n');
        begun.streams['control']?.terminate();
        begun.streams['0']?.terminate();
        expect(await begun.over()).toBe(137);
      });
    },
  },
  {
    name: 'an exec without a terminal reads its input to the empty text message that ends it',
    async run(incus) {
      await withInstance(incus, async (name) => {
        const copy = await attach(incus, name, ['cat'], { interactive: false });
        copy.streams['0']?.send(Buffer.from('one\n'));
        await expect.poll(copy.text).toBe('one\n');
        copy.streams['0']?.send('');
        expect(await copy.over()).toBe(0);
      });
    },
  },
  {
    name: 'an exec runs as the user and in the directory that are asked for',
    async run(incus) {
      await withInstance(incus, async (name) => {
        const as = { interactive: false, user: 1000, group: 100, cwd: '/tmp' };
        const asked = await attach(incus, name, sh('id -u; pwd'), as);
        expect(await asked.over()).toBe(0);
        expect(asked.text()).toBe('1000\n/tmp\n');
        const usual = await attach(incus, name, sh('id -u; pwd'), { interactive: false });
        expect(await usual.over()).toBe(0);
        expect(usual.text()).toBe('0\n/root\n');
      });
    },
  },
];

interface Attached {
  streams: Readonly<Record<string, ByteStream>>;
  text: () => string;
  /** Its exit code, once it has ended. */
  over: () => Promise<unknown>;
}

async function attach(
  incus: Endpoint,
  name: string,
  command: readonly string[],
  options: Record<string, unknown>,
): Promise<Attached> {
  const begun = await incus.request('POST', `/1.0/instances/${name}/exec`, {
    body: { command, 'wait-for-websocket': true, ...options },
  });
  const operation = envelope(begun).metadata as OperationSeen;
  expect(operation.class).toBe('websocket');
  const fds = operation.metadata?.['fds'] as Record<string, string>;
  const base = `/1.0/operations/${operation.id}`;
  const streams: Record<string, ByteStream> = {};
  for (const fd of ['control', ...Object.keys(fds).filter((key) => key !== 'control')])
    streams[fd] = await incus.stream(`${base}/websocket?secret=${fds[fd] ?? ''}`);
  return {
    streams,
    text: () => streams[options['interactive'] === true ? '0' : '1']?.text() ?? '',
    over: async () => {
      const waited = await incus.request('GET', `${base}/wait?timeout=10`);
      return (envelope(waited).metadata as OperationSeen).metadata?.['return'];
    },
  };
}
