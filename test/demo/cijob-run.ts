import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

const program = join(import.meta.dirname, '../../controller/main.ts');
const phases = ['Provisioning', 'Booting', 'Running', 'Collecting'] as const;

/** How a run of `cijob run` ended. */
export interface RunResult {
  exitCode: number;
  /** From the start of the program to its end. */
  milliseconds: number;
  /** The phase the job ended in. */
  phase: string;
  /** What each phase took, as the program said it: `210ms`. */
  times: Partial<Record<(typeof phases)[number], string>>;
}

/** Runs the real `cijob run`, showing what it says while it says it: the job's log marked with a bar. */
export async function cijobRun(
  args: readonly string[],
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<RunResult> {
  const started = performance.now();
  // In a process group of its own, so that a Ctrl-C in the terminal reaches it once: from here.
  const child = spawn(process.execPath, [program, 'run', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const interrupt = () => child.kill('SIGINT');
  signal.addEventListener('abort', interrupt, { once: true });
  if (signal.aborted) interrupt();
  let last = '';
  const reading = [
    eachLine(child.stdout, (line) => say(`  │ ${line}`)),
    eachLine(child.stderr, (line) => {
      last = line;
      say(`  ${line}`);
    }),
  ];
  try {
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => resolve(code ?? 1));
    });
    await Promise.all(reading);
    return { exitCode, milliseconds: performance.now() - started, ...readSummary(last) };
  } finally {
    signal.removeEventListener('abort', interrupt);
  }
}

async function eachLine(stream: Readable, handle: (line: string) => void): Promise<void> {
  for await (const line of createInterface({ input: stream })) handle(line);
}

/** Reads the last line that `cijob run` says of a job: the phase it ended in, and what each phase took. */
export function readSummary(line: string): Pick<RunResult, 'phase' | 'times'> {
  const times: RunResult['times'] = {};
  for (const phase of phases) {
    const took = new RegExp(`${phase} ([0-9.]+m?s|[0-9]+[mh][0-9]+[sm])`).exec(line)?.[1];
    if (took !== undefined) times[phase] = took;
  }
  return { phase: /\b(Succeeded|Failed|Cancelled)\b/.exec(line)?.[1] ?? 'unknown', times };
}
