import { spawn } from 'node:child_process';

/** How a command ended. `code` is null when a signal ended it, and `signal` then names it. */
export interface CommandResult {
  stdout: string;
  stderr: string;
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface CommandOptions {
  /** Written to the command's standard input, which is then closed. */
  input?: string | Uint8Array;
  /** Added to this process's own environment; `undefined` takes a variable away. */
  env?: Record<string, string | undefined>;
  cwd?: string;
  /** After this long the command gets SIGKILL. Default: 120 s. */
  timeoutMs?: number;
  /** Called with each complete line of either output, as it comes. */
  onLine?: (line: string) => void;
}

/** A command that could not be started, was killed, or ended with another code than 0. */
export class CommandError extends Error {
  readonly result: CommandResult;

  constructor(file: string, args: readonly string[], result: CommandResult) {
    const how = result.signal ? `was ended by ${result.signal}` : `exited with ${result.code ?? 'no code'}`;
    const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-20).join('\n');
    super(`${[file, ...args].join(' ')} ${how}${said ? `:\n${said}` : ''}`);
    this.name = 'CommandError';
    this.result = result;
  }
}

/**
 * Runs a command without a shell and returns what it said, whatever its exit code.
 * Rejects only when the command cannot be started (not installed, not executable).
 */
export async function run(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 120_000);
  const collect = (stream: NodeJS.ReadableStream) => {
    const collected = { text: '' };
    let partial = '';
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      collected.text += chunk;
      if (!options.onLine) return;
      const lines = (partial + chunk).split('\n');
      partial = lines.pop() ?? '';
      lines.forEach(options.onLine);
    });
    return collected;
  };
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  // A command that does not read its input closes the pipe early; its exit code tells what matters.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) =>
        resolve({ stdout: stdout.text, stderr: stderr.text, code, signal }),
      );
    });
  } finally {
    clearTimeout(timer);
  }
}

/** As `run`, but any end other than exit code 0 is a CommandError. Returns standard output. */
export async function runOk(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const result = await run(file, args, options);
  if (result.code !== 0) throw new CommandError(file, args, result);
  return result.stdout;
}
