import type { GuestFiles } from './guest-files.ts';

/** One thing a plain command does in a simulated guest. */
export type Step =
  | { do: 'exit'; code: number }
  | { do: 'sleep'; milliseconds: number }
  | { do: 'print'; text: string }
  /** Prints a file from byte `from` on, and what is added to it, until it is killed. */
  | { do: 'follow'; path: string; from: number }
  /** Prints what the command knows of itself. */
  | { do: 'tell'; what: 'user' | 'directory' | 'size' }
  /** Prints what comes in, until that ends. */
  | { do: 'copy' }
  /** Prints the size of its terminal for each line that comes in. */
  | { do: 'sizes' }
  | { do: 'files'; apply: (files: GuestFiles) => void }
  | { do: 'reboot' | 'poweroff' | 'announce' };

/** Why a command did not start, with the code a shell gives it. */
export interface NotStarted {
  code: 126 | 127;
  error: string;
}

const notFound: NotStarted = { code: 127, error: 'Command not found' };
const notExecutable: NotStarted = { code: 126, error: 'Command not executable' };

/**
 * Reads the few commands that tests run in guests beside the runner. No shell: a fixed list of forms, enough for the
 * scenarios that run against a real Incus too. What is not on the list is "not found".
 */
export function plainCommand(argv: readonly string[]): readonly Step[] | NotStarted {
  const [program = '', ...words] = argv;
  if (program === 'env') return plainCommand(words.filter((word) => !/^\w+=/.test(word)));
  const name = program.slice(program.lastIndexOf('/') + 1);
  if (name === 'busybox') return plainCommand(words);
  if (name === 'sh' && words[0] === '-c') return script(words[1] ?? '');
  return simple([name, ...words], program);
}

function script(text: string): readonly Step[] {
  if (text === 'while read -r line; do stty size; done') return [{ do: 'sizes' }];
  const steps: Step[] = [];
  for (const line of text.split(/[;\n]/).map((part) => part.trim())) {
    if (line === '') continue;
    const redirect = /^(.*?)\s*(>>?)\s*(\S+)$/.exec(line);
    const [, said = '', how, path = ''] = redirect ?? [];
    if (redirect && /^(echo|:)\b|^:/.test(said)) {
      const content = said.startsWith('echo') ? `${said.slice(5)}\n` : '';
      steps.push({
        do: 'files',
        apply: (files) => (how === '>>' ? files.append(path, content) : files.write(path, content)),
      });
      continue;
    }
    const made = simple(line.split(/\s+/), line.split(/\s+/)[0] ?? '');
    if ('code' in made) return [...steps, { do: 'exit', code: made.code }];
    steps.push(...made);
  }
  return steps;
}

function simple(words: readonly string[], program: string): readonly Step[] | NotStarted {
  const [name = '', first = '', second = '', third = ''] = words;
  const change = (apply: (files: GuestFiles) => void): Step[] => [{ do: 'files', apply }];
  switch (name) {
    case 'true':
      return [];
    case 'false':
      return [{ do: 'exit', code: 1 }];
    case 'exit':
      return [{ do: 'exit', code: Number(first) }];
    case 'kill':
      return [{ do: 'exit', code: 128 - Number(first) }];
    case 'sleep':
      return [{ do: 'sleep', milliseconds: Number(first) * 1000 }];
    case 'echo':
      return [{ do: 'print', text: `${words.slice(1).join(' ')}\n` }];
    case 'id':
      return [{ do: 'tell', what: 'user' }];
    case 'pwd':
      return [{ do: 'tell', what: 'directory' }];
    case 'stty':
      // Only as `stty size`.
      return [{ do: 'tell', what: 'size' }];
    case 'cat':
      return [{ do: 'copy' }];
    case 'mkdir':
      return change((files) => files.set(first === '-p' ? second : first, { kind: 'directory' }));
    case 'mkfifo':
      return change((files) => files.set(first, { kind: 'fifo' }));
    case 'ln':
      return change((files) => files.set(third, { kind: 'symlink', target: second }));
    case 'touch':
      // A file's time is what GuestFiles says.
      return [];
    case 'truncate':
      return change((files) => files.set(third, { kind: 'zeros', size: Number(second) }));
    case 'tail':
      // Only as `tail -c +N -F PATH`.
      return [{ do: 'follow', path: words[4] ?? '', from: Number(second) - 1 }];
    case 'reboot':
      return [{ do: 'reboot' }];
    case 'poweroff':
      return [{ do: 'poweroff' }];
    default:
      return program.startsWith('/etc') ? notExecutable : notFound;
  }
}
