import { chmod, open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { runOk } from '../support/command.ts';
import { addSource, type BenchHost } from './support/bench.ts';

/** One line that a command wrote when it began. */
export interface Run {
  job: string;
  /** Name of the instance it ran in: one instance is one attempt. */
  instance: string;
  /** Which time in this guest's life it was, by a file in its /artifacts. */
  count: number;
  /** When we heard of it, on this process's own clock. */
  heardAt: number;
}

/**
 * What really ran, told by the commands themselves to somebody who is not killed.
 *
 * Guests have no network and may write to no directory of the host. But a named pipe takes what is written to it even
 * on a read-only mount, and a line shorter than PIPE_BUF goes in whole or not at all. So each command, as its first
 * act, writes a line into a pipe that lies in its snapshot, and the test process reads it. Nothing of the controller
 * is believed.
 */
export class Tally implements AsyncDisposable {
  /** Directory to mount as the snapshot. */
  readonly source: string;
  readonly runs: Run[] = [];
  readonly #pipe: FileHandle;
  #partial = '';

  private constructor(source: string, pipe: FileHandle) {
    this.source = source;
    this.#pipe = pipe;
    void this.#read();
  }

  static async start(host: BenchHost): Promise<Tally> {
    const source = await addSource(host, 'tally', {});
    const path = join(source, 'pipe');
    await runOk('mkfifo', [path]);
    await chmod(path, 0o622);
    // Open for both: it neither blocks now nor comes to its end between two writers.
    return new Tally(source, await open(path, 'r+'));
  }

  /** Shell commands with which a job begins: it leaves its mark in its own guest, and tells us. */
  static mark(job: string): string {
    return [
      'echo run >>/artifacts/runs',
      'read -r me </proc/sys/kernel/hostname',
      `echo "${job} $me $(grep -c run /artifacts/runs)" >/workspace/snapshot/pipe`,
    ].join('; ');
  }

  of(job: string): Run[] {
    return this.runs.filter((run) => run.job === job);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A read is always waiting; a last line lets it end, so that the pipe can be closed.
    await this.#pipe.write('\n');
    await this.#pipe.close().catch(() => undefined);
  }

  async #read(): Promise<void> {
    const buffer = Buffer.alloc(64 * 1024);
    for (;;) {
      const { bytesRead } = await this.#pipe.read(buffer).catch(() => ({ bytesRead: 0 }));
      if (bytesRead === 0) return;
      const lines = (this.#partial + buffer.toString('utf8', 0, bytesRead)).split('\n');
      this.#partial = lines.pop() ?? '';
      for (const line of lines) {
        if (line === '') return;
        const [job = '', instance = '', count = ''] = line.split(' ');
        this.runs.push({ job, instance, count: Number(count), heardAt: performance.now() });
      }
    }
  }
}
