import { writeSync } from 'node:fs';
import type { Clock } from '../clock.ts';
import { printableJson } from '../printable.ts';

/** Fields of a line of the audit; strings are bounded by whoever hands them in. */
export type AuditFields = object & { stage: string };

/**
 * The record of who had access to what: JSON lines on standard output, which holds nothing else, while all other lines
 * of the controller go to standard error. So neither log level nor format nor flood of other lines takes any away. A
 * line is written before `record` returns.
 *
 * @param write writes all of a line, or throws; standard output by default.
 */
export function auditLog(
  clock: Clock,
  write: (line: string) => void = standardOutput(),
): { record(fields: AuditFields): void } {
  return {
    record(fields) {
      const time = new Date(clock.now()).toISOString();
      write(
        `${printableJson({ level: 'info', time, audit: true, msg: `access ${fields.stage}`, ...fields })}\n`,
      );
    },
  };
}

/** What writes a line. It throws the system's error: of a pipe that is full or closed, of a full file system. */
function standardOutput(): (line: string) => void {
  let isTorn = false;
  return (line) => {
    const bytes = Buffer.from(isTorn ? `\n${line}` : line);
    let written = 0;
    try {
      while (written < bytes.length) written += writeSync(1, bytes, written);
    } finally {
      if (written > 0) isTorn = written < bytes.length;
    }
  };
}
