/*
 * The variables of a job go to the guest by a file. In the exec itself they would be the environment of processes that
 * are root's, which heed some of them, and for a container Incus would hand them to `incusd forkexec` as arguments
 * (measured on 6.0.4), which every user of the host can read.
 */

/**
 * The runner reads the file as data, and removes it before the command begins. It is root's, on the guest's own disk:
 * `/run` is no place for it, as a guest that boots mounts that anew.
 */
export const environmentFilePath = '/root/.pikaci-incus-environment';

/** Parameter of the runner that names the file. */
export const environmentFileVariable = 'PIKACI_INCUS_ENVIRONMENT_FILE';

/** For Incus's `POST …/files`: nobody but the guest's root may read it. */
export const environmentFileHeaders = {
  'content-type': 'application/octet-stream',
  'x-incus-type': 'file',
  'x-incus-write': 'overwrite',
  'x-incus-uid': '0',
  'x-incus-gid': '0',
  'x-incus-mode': '0600',
};

/** Variables of a job: names, and values as the bytes they are. */
export type Variables = ReadonlyMap<string, Buffer>;

/**
 * The content of the file: `name=value` pairs that each end in NUL, which no value may hold, and an empty one, by which
 * the runner knows that the file is whole.
 */
export function environmentFile(variables: Variables): Buffer {
  const pairs = [...variables].flatMap(([name, value]) => [Buffer.from(`${name}=`), value, nul]);
  return Buffer.concat([...pairs, nul]);
}

const nul = Buffer.from([0]);
