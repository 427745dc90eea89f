/**
 * The environment of a job with Secrets goes by a file in the guest. For a container, Incus would hand it to
 * `incusd forkexec` as arguments (measured on 6.0.4), which every user of the host can read.
 *
 * It is root's, on the guest's own disk, and gone before the runner begins. `/run` is no place for it: a guest that
 * boots mounts that anew.
 */
export const environmentFilePath = '/root/.pikaci-incus-environment';

/** For Incus's `POST …/files`: nobody but the guest's root may read it. */
export const environmentFileHeaders = {
  'content-type': 'application/octet-stream',
  'x-incus-type': 'file',
  'x-incus-write': 'overwrite',
  'x-incus-uid': '0',
  'x-incus-gid': '0',
  'x-incus-mode': '0600',
};

/**
 * Reads the file, removes it, and becomes the command behind its first argument. Reading comes first, as a variable of
 * the job may change what bash does; `-p` keeps bash from acting on those there are.
 */
const loader = [
  'mapfile -d "" -t PIKACI_INCUS_FILE <"$1" || exit 1',
  'rm -f "$1"',
  'shift',
  'for PIKACI_INCUS_PAIR in "${PIKACI_INCUS_FILE[@]}"; do export "${PIKACI_INCUS_PAIR?}"; done',
  'exec "$@"',
].join('; ');

/** The same command, with its environment from the file. Bash is where every image has it (docs/guest-contract.md). */
export function fromEnvironmentFile(argv: readonly string[]): string[] {
  const bash = '/run/current-system/sw/bin/bash';
  return [bash, '-p', '-c', loader, 'load-environment', environmentFilePath, ...argv];
}

/** The content of the file. No value may hold a NUL, which no environment can carry. */
export function environmentFile(environment: Readonly<Record<string, string>>): Buffer {
  return Buffer.from(
    Object.entries(environment)
      .map(([name, value]) => `${name}=${value}\0`)
      .join(''),
  );
}
