import { setTimeout as delay } from 'node:timers/promises';
import type WebSocket from 'ws';
import { Unable, withCluster, type ClusterFlags } from './cluster.ts';
import { leave, programEnd } from './program-end.ts';
import { serverAccess, serverUrl, type ServerAccess, type ServerFlags } from './server-access.ts';
import { ServerRefused } from './server-refused.ts';
import { connectShell, converse } from './shell-session.ts';

export interface ShellOptions extends ClusterFlags, ServerFlags {
  root?: boolean;
}

/** How long to wait for a controller that leads, in milliseconds: one restarts, or another takes over. */
const patience = 60_000;
const pause = 1_000;

/**
 * `cijob shell NAME [-- COMMAND…]`: a shell, or another command, in the guest of a job. Returns its exit code. With a
 * terminal on both sides it is interactive, else its three streams are ours.
 */
export async function shell(
  name: string,
  command: readonly string[],
  options: ShellOptions,
): Promise<number> {
  return withCluster(options, async ({ config, namespace }) => {
    const access = await serverAccess(config, options);
    if (typeof access === 'string') throw new Unable(access);
    const { stdin, stdout } = process;
    const interactive = stdin.isTTY && stdout.isTTY;
    const query = new URLSearchParams(command.map((word): [string, string] => ['command', word]));
    if (options.root) query.set('root', 'true');
    if (interactive) {
      query.set('tty', 'true');
      query.set('term', process.env['TERM'] ?? 'dumb');
      query.set('width', String(stdout.columns || 80));
      query.set('height', String(stdout.rows || 24));
    }
    const socket = await connect(access, serverUrl(access, { namespace, name }, 'shell', query));
    const restore = interactive ? rawTerminal() : () => undefined;
    try {
      const end = await converse(socket, {
        ...{ stdin, stdout, stderr: process.stderr },
        ...(interactive ? { onResize: followSize } : {}),
      });
      if (end.kind === 'exited') return end.code;
      restore();
      throw new Unable(`the shell ended: ${end.message}`);
    } finally {
      restore();
      // A pipe that nobody closes would keep us.
      stdin.destroy();
    }
  });
}

async function connect(access: ServerAccess, target: URL): Promise<WebSocket> {
  const until = performance.now() + patience;
  for (;;) {
    try {
      return await connectShell(access, target);
    } catch (error) {
      const passes = error instanceof ServerRefused && error.code === 503 && error.passes;
      if (!passes || performance.now() > until) throw error;
      await delay(pause);
    }
  }
}

/** Hands every key on as it is. Returns what makes the terminal as it was, which also happens however we end. */
function rawTerminal(): () => void {
  const { stdin } = process;
  const wasRaw = stdin.isRaw;
  const restore = () => {
    if (!stdin.destroyed) stdin.setRawMode(wasRaw);
  };
  stdin.setRawMode(true);
  process.once('exit', restore);
  const giveBack = programEnd.takeOver((cause) => {
    restore();
    leave(cause);
  });
  return () => {
    giveBack();
    restore();
    process.off('exit', restore);
  };
}

function followSize(hear: (size: { width: number; height: number }) => void): void {
  const { stdout } = process;
  const tell = () => hear({ width: stdout.columns, height: stdout.rows });
  stdout.on('resize', tell);
  // It may have changed since we asked for the shell.
  tell();
}
