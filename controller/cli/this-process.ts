import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import type { RunOwner } from '../reconcile/run-owner.ts';

/** Who this process is, to others that find its instances. */
export function thisProcess(): RunOwner {
  const { pid } = process;
  return { place: place() ?? randomBytes(16).toString('hex'), pid, start: statOf(pid)?.start ?? '0' };
}

/** Whether a process of this place lives. When in doubt, it does. */
export function processLives({ pid, start }: RunOwner): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const stat = statOf(pid);
  // Another user's process may be hidden. One that has ended and was not waited for yet is dead.
  return stat === undefined || (stat.start === start && stat.state !== 'Z' && stat.state !== 'X');
}

/**
 * The machine, its boot, and the namespaces in which process numbers and start times are counted: containers of one host
 * share the boot, and often the machine's id. Hashed, as an id of a machine is not for others to see (machine-id(5)).
 * Undefined where the system tells nothing of it; no other process is then in the same place.
 */
function place(): string | undefined {
  try {
    const parts = [
      readFileSync('/etc/machine-id', 'utf8').trim(),
      readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      readlinkSync('/proc/self/ns/pid'),
      readlinkSync('/proc/self/ns/time'),
    ];
    return createHash('sha256')
      .update(`cijob run\n${parts.join('\n')}`)
      .digest('hex')
      .slice(0, 32);
  } catch {
    return undefined;
  }
}

/** State and start time of a process (proc_pid_stat(5)); undefined if that cannot be seen. */
function statOf(pid: number): { state: string; start: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is a name in brackets that may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state = '', start = ''] = [fields[0], fields[19]];
    return { state, start };
  } catch {
    return undefined;
  }
}
