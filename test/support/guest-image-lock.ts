import { spawn } from 'node:child_process';
import { once } from 'node:events';

/**
 * Does the work while holding an exclusive lock on a file, which is made when it is missing; waits for another process
 * that holds it. The lock goes with this process however it ends: flock(1) holds it as long as its input is open.
 */
export async function withLock<T>(path: string, work: () => Promise<T>): Promise<T> {
  const holder = spawn('flock', [path, 'sh', '-c', 'echo locked; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(holder, 'close');
  const locked = await Promise.race([once(holder.stdout, 'data').then(() => true), ended.then(() => false)]);
  if (!locked)
    throw new Error(`flock ${path} ended with ${holder.exitCode ?? holder.signalCode ?? 'no code'}`);
  try {
    return await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}
