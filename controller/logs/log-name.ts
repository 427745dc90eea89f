import { join } from 'node:path';

/** Names the log of one attempt of one CiJob. */
export interface LogName {
  namespace: string;
  name: string;
  /** Uid of the CiJob: another one of the same name has another log. */
  uid: string;
  /** From 1. */
  attempt: number;
}

export type JobName = Omit<LogName, 'attempt'>;

/** A DNS subdomain, as names of objects are: no slash, and never `.` or `..`. */
const objectName = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/;
const uidShape = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?$/;
const attemptFile = /^([1-9]\d{0,2})\.(log|tar\.gz)$/;

/** Whether every part of the name can stand in a path. */
export function isSafe({ namespace, name, uid }: JobName): boolean {
  return objectName.test(namespace) && objectName.test(name) && uidShape.test(uid);
}

/**
 * The directory of one CiJob's logs.
 *
 * @throws RangeError when a part of the name could lead elsewhere.
 */
export function directoryOf(root: string, job: JobName): string {
  if (!isSafe(job)) throw new RangeError('the names of a CiJob do not make a safe path');
  return join(root, job.namespace, job.name, job.uid);
}

/** What is kept of an attempt: its log, and the archive of its artifacts. */
export type Kind = 'log' | 'tar.gz';

export function fileOf(root: string, log: LogName, kind: Kind = 'log'): string {
  return join(directoryOf(root, log), `${log.attempt}.${kind}`);
}

/** The attempt that a file's name tells, and what of it is there; undefined for any other file. */
export function attemptOf(file: string): { attempt: number; kind: Kind } | undefined {
  const [, digits, kind] = attemptFile.exec(file) ?? [];
  return digits === undefined ? undefined : { attempt: Number(digits), kind: kind as Kind };
}
