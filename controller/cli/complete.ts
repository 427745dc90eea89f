import type { Command, Option } from 'commander';

/** What a shell may offer, as Cobra's programs say it: kubectl reads this, and so do our scripts. */
export interface Completion {
  candidates: readonly { word: string; summary?: string }[];
  /** Whether names of files do, too. */
  files: boolean;
}

/** Names of the CiJobs that these flags of a subcommand lead to. */
export type Names = (flags: {
  kubeconfig?: string;
  context?: string;
  namespace?: string;
}) => Promise<string[]>;

/**
 * What can come in place of the last of the words, given those before it.
 *
 * @param words of the command line, without the program's own name; the last one may be empty or begun
 */
export async function complete(
  program: Command,
  words: readonly string[],
  names: Names,
): Promise<Completion> {
  const before = words.slice(0, -1);
  const begun = words.at(-1) ?? '';
  const all = await candidates(program, before, begun, names);
  return { ...all, candidates: all.candidates.filter(({ word }) => word.startsWith(begun)) };
}

const nothing: Completion = { candidates: [], files: false };

async function candidates(
  program: Command,
  [first, ...rest]: readonly string[],
  begun: string,
  names: Names,
): Promise<Completion> {
  if (first === undefined)
    return { candidates: program.createHelp().visibleCommands(program).map(described), files: false };
  const command = program.commands.find((one) => one.name() === first);
  if (!command) return nothing;
  const { flags, wanting, operands } = read(command, rest);
  if (wanting) return valueOf(wanting);
  if (begun.startsWith('-')) return { candidates: command.options.map(flag), files: false };
  const argument = command.registeredArguments[operands];
  if (argument?.argChoices) return { candidates: argument.argChoices.map(only), files: false };
  if (argument?.name() !== 'name') return nothing;
  return { candidates: (await names(flags)).map(only), files: false };
}

/** What the words after a subcommand say: the values of its flags, the flag that still wants one, how many operands. */
function read(command: Command, words: readonly string[]) {
  const flags: Record<string, string> = {};
  let wanting: Option | undefined;
  let operands = 0;
  for (const word of words) {
    if (wanting) {
      flags[wanting.attributeName()] = word;
      wanting = undefined;
      continue;
    }
    const [name, value] = word.split(/=(.*)/s);
    const option = command.options.find(({ long, short }) => name === long || name === short);
    if (!option) operands += word.startsWith('-') ? 0 : 1;
    else if (value !== undefined) flags[option.attributeName()] = value;
    else if (option.required) wanting = option;
  }
  return { flags, wanting, operands };
}

function valueOf({ argChoices, flags }: Option): Completion {
  if (argChoices) return { candidates: argChoices.map(only), files: false };
  return { candidates: [], files: /<(file|directory)>/.test(flags) };
}

const only = (word: string) => ({ word });
const flag = ({ long, description }: Option) => ({ word: long ?? '', summary: description });
const described = (command: Command) => ({ word: command.name(), summary: command.description() });

/** A candidate a line, with its summary after a tab, and Cobra's directive: `:4` for "no files", `:0` for files too. */
export function completionLines({ candidates: offered, files }: Completion): string {
  const lines = offered.map(({ word, summary }) => (summary === undefined ? word : `${word}\t${summary}`));
  return [...lines, files ? ':0' : ':4', ''].join('\n');
}
