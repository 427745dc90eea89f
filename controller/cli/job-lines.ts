import { styleText } from 'node:util';
import type { LogSource } from '../hosts/live-logs.ts';
import { printable } from '../printable.ts';
import { keyOf } from '../reconcile/names.ts';

/** Prints the logs of jobs as they come. */
export interface LogPrinter {
  take(log: LogSource, chunk: Buffer): void;
  /** Nothing more comes of what a job's attempt wrote so far. */
  end(job: string): void;
}

/** A line that is longer is printed in pieces of this many bytes: a guest may write without end and no line feed. */
export const longestLine = 64 * 1024;
const longestLabel = 40;
const colours = ['cyan', 'yellow', 'green', 'magenta', 'blue'] as const;
const lineFeed = 0x0a;

interface Held {
  job: string;
  bytes: Buffer;
}

/**
 * Prints the logs of several jobs into one output: whole lines, each after the name of its job. The lines of one job
 * keep their order, and their bytes unless they go to a terminal.
 */
export class JobLines implements LogPrinter {
  readonly #prefixes: ReadonlyMap<string, string>;
  readonly #write: (bytes: Buffer | string) => void;
  readonly #terminal: boolean;
  /** By instance, the beginning of a line whose end has not come. */
  readonly #held = new Map<string, Held>();

  /**
   * @param jobs the keys of all jobs.
   * @param terminal whether people look at it: names are coloured then, and nothing in a log moves the cursor.
   */
  constructor(jobs: readonly string[], write: (bytes: Buffer | string) => void, terminal: boolean) {
    this.#prefixes = prefixesOf(jobs, terminal);
    this.#write = write;
    this.#terminal = terminal;
  }

  take(log: LogSource, chunk: Buffer): void {
    const job = keyOf(log);
    const before = this.#held.get(log.instance)?.bytes ?? Buffer.alloc(0);
    let rest = Buffer.concat([before, chunk]);
    for (let end = lineEnd(rest); end !== undefined; end = lineEnd(rest)) {
      this.#print(job, rest.subarray(0, end));
      rest = rest.subarray(rest[end] === lineFeed ? end + 1 : end);
    }
    if (rest.length > 0) this.#held.set(log.instance, { job, bytes: Buffer.from(rest) });
    else this.#held.delete(log.instance);
  }

  end(job: string): void {
    for (const [instance, held] of this.#held) {
      if (held.job !== job) continue;
      this.#held.delete(instance);
      this.#print(job, held.bytes);
    }
  }

  #print(job: string, line: Buffer): void {
    const prefix = this.#prefixes.get(job) ?? `${job} | `;
    if (this.#terminal) this.#write(`${prefix}${shown(line)}\n`);
    else this.#write(Buffer.concat([Buffer.from(prefix), line, Buffer.from('\n')]));
  }
}

/** What stands before the lines of each job, all of one width. */
function prefixesOf(jobs: readonly string[], terminal: boolean): Map<string, string> {
  const labels = labelsOf(jobs);
  const width = Math.max(...labels.map((label) => label.length));
  const prefixes = labels.map((label, index) => {
    const prefix = `${label.padEnd(width)} | `;
    const colour = colours[index % colours.length] ?? 'cyan';
    return terminal ? styleText(colour, prefix, { stream: process.stdout }) : prefix;
  });
  return new Map(jobs.map((job, index) => [job, prefixes[index] ?? '']));
}

/** Where the first line of these bytes ends; undefined while that is still to come. */
function lineEnd(bytes: Buffer): number | undefined {
  const end = bytes.indexOf(lineFeed);
  if (end >= 0 && end <= longestLine) return end;
  if (bytes.length <= longestLine) return undefined;
  let cut = longestLine;
  // Not within a character of UTF-8, which has at most three bytes after its first.
  while (cut > longestLine - 3 && ((bytes[cut] ?? 0) & 0xc0) === 0x80) cut -= 1;
  return cut;
}

/** What a terminal shows of a line in the end, colours included, and nothing that reaches beyond the line. */
function shown(line: Buffer): string {
  const text = line.toString('utf8').replace(/\r+$/, '');
  const parts = text.slice(text.lastIndexOf('\r') + 1).split(/(\u001b\[[0-9;:]*m)/);
  const safe = parts.map((part, index) => (index % 2 === 1 ? part : printable(part))).join('');
  return parts.length > 1 ? `${safe}\u001b[0m` : safe;
}

/** What each job is called before its lines: its name, short enough to leave room for them. */
function labelsOf(jobs: readonly string[]): readonly string[] {
  const names = jobs.map((job) => job.slice(job.indexOf('/') + 1));
  const whole = isUnique(names) ? names : jobs;
  const short = whole.map(shortened);
  return isUnique(short) ? short : whole;
}

function shortened(label: string): string {
  const half = longestLabel / 2;
  return label.length <= longestLabel ? label : `${label.slice(0, half)}…${label.slice(1 - half)}`;
}

function isUnique(labels: readonly string[]): boolean {
  return new Set(labels).size === labels.length;
}
