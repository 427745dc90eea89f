import type { JobInput } from './support/cluster.ts';

/** How a job must end. */
export interface Ending {
  phase: 'Succeeded' | 'Failed';
  class?: 'Test' | 'Timeout' | 'Infrastructure';
  /** Any of these. */
  reasons?: readonly string[];
  exitCode?: number;
}

/** A job whose command means ill, and how it must end. */
export type Hostile = [job: JobInput, ending: Ending];

const result = '/artifacts/result.json';
const runnerPath = '/run/current-system/sw/bin/pikaci-incus-run';

const exits = (exitCode: number): Ending => ({ phase: 'Failed', class: 'Test', exitCode });
const infrastructure = (...reasons: string[]): Ending => ({
  phase: 'Failed',
  class: 'Infrastructure',
  reasons,
});
/**
 * By the guest's own limit, or by the host's thirty seconds later, whichever comes first on this machine. That the guest
 * itself ends them is tested where nobody else waits (guest/limits.test.ts).
 */
const timeout: Ending = { phase: 'Failed', class: 'Timeout' };
const invalid = infrastructure('ResultInvalid');
/** There is no result: a second launch finds that the command was begun and is gone, and says so. */
const noResult = infrastructure('BootstrapFailed', 'RunnerVanished');
/** Incus tells the end of the runner and that of its machine in either order: the reason is what was seen first. */
const gone = infrastructure('InstanceStopped', 'BootstrapFailed', 'RunnerVanished');

const asRoot = (command: string): JobInput => ({ command, runAsRoot: true });

/**
 * Root in its guest may kill the runner: nobody is left to put the truth in place of the forgery. All of it is stopped
 * first, as whatever part of it is killed last would put the truth back. It does so from a
 * session of its own, by a script whose own command line does not name what it kills.
 */
export function forged(forge: string): JobInput {
  return asRoot(`cat >/tmp/x <<'END'
to_runner() {
  for process in /proc/[0-9]*; do
    if tr '\\0' ' ' <$process/cmdline | grep -q '${runnerPath}'; then kill $1 \${process#/proc/}; fi
  done 2>/dev/null
}
to_runner -STOP
${forge}
to_runner -KILL
END
setsid bash /tmp/x; sleep 60`);
}

/** What root does to the result when nobody can put it right again. */
const results: Record<string, Hostile> = {
  missing: [forged(`rm -rf ${result}`), noResult],
  empty: [forged(`rm -rf ${result}; : >${result}`), noResult],
  garbled: [forged(`echo '{"schema_version":1,"sta' >${result}`), invalid],
  'of-another-shape': [forged(`echo '{"schema_version":1,"status":"passed"}' >${result}`), invalid],
  'of-one-gigabyte': [forged(`truncate -s 1G ${result}`), invalid],
  'a-pipe': [forged(`rm -rf ${result}; mkfifo ${result}`), noResult],
  'a-link': [forged(`rm -rf ${result}; ln -s /dev/zero ${result}`), invalid],
  'a-directory': [forged(`rm -rf ${result}; mkdir ${result}`), invalid],
};

/** What a command does to its log. */
const logs: Record<string, Hostile> = {
  'two-gigabytes': [{ command: 'head -c 2000000000 /dev/zero; exit 5' }, exits(5)],
  'five-sparse-gigabytes': [asRoot('truncate -s 5G /artifacts/guest.log; exit 6'), exits(6)],
  'a-pipe': [asRoot('rm -f /artifacts/guest.log; mkfifo /artifacts/guest.log; exit 7'), exits(7)],
};

/** What a command does to its machine. */
const machines: Record<string, Hostile> = {
  'fills-its-disk': [
    asRoot('mount -t tmpfs -o size=4m,mode=1777 none /artifacts; cat /dev/zero >/artifacts/fill; sleep 1'),
    infrastructure('BootstrapFailed', 'RunnerVanished', 'ResultInvalid'),
  ],
  'forks-without-end': [
    {
      command: 'b() { b 2>/dev/null | b 2>/dev/null & }; b; sleep 60',
      timeoutSeconds: 3,
      instance: { memory: '4GiB' },
    },
    timeout,
  ],
  'forks-without-end-as-root': [
    {
      command: 'b() { b 2>/dev/null | b 2>/dev/null & }; b; sleep 60',
      timeoutSeconds: 3,
      runAsRoot: true,
      instance: { memory: '4GiB' },
    },
    timeout,
  ],
  'eats-all-memory': [{ command: 'tail /dev/zero; exit 9', instance: { memory: '64MiB' } }, exits(9)],
  'powers-off': [asRoot('sleep 0.5; poweroff -f; sleep 60'), gone],
  'stops-its-init': [asRoot('sleep 0.5; kill -USR2 1; kill -TERM 1; sleep 60'), gone],
  reboots: [asRoot('sleep 0.5; reboot -f; sleep 60'), gone],
};

/** All of them, by the name of the job. */
export const hostiles: Readonly<Record<string, Hostile>> = Object.fromEntries(
  Object.entries({ result: results, log: logs, guest: machines }).flatMap(([what, group]) =>
    Object.entries(group).map(([how, hostile]) => [`${what}-${how}`, hostile]),
  ),
);
