import type { Command } from 'commander';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** Subcommands whose argument is the name of a CiJob. */
const named = ['get', 'describe', 'logs', 'shell', 'cancel', 'retry', 'hold', 'release'];

/** A script that completes subcommands, flags and, by asking the cluster, names of CiJobs. */
export function completion(program: Command, shell: Shell): string {
  const commands = program.commands.map((command) => ({
    name: command.name(),
    summary: command.description().replaceAll("'", ''),
    flags: command.options.flatMap(({ long }) => long ?? []),
  }));
  switch (shell) {
    case 'bash':
      return bash(commands);
    case 'zsh':
      return `#compdef cijob\nautoload -U +X bashcompinit && bashcompinit\n${bash(commands)}`;
    case 'fish':
      return fish(commands);
  }
}

interface Described {
  name: string;
  summary: string;
  flags: readonly string[];
}

function bash(commands: readonly Described[]): string {
  const flags = commands.map(({ name, flags: of }) => `    ${name}) flags='${of.join(' ')}' ;;`);
  return `_cijob() {
  local current=\${COMP_WORDS[COMP_CWORD]} flags=''
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W '${commands.map(({ name }) => name).join(' ')}' -- "$current")
    return
  fi
  case \${COMP_WORDS[1]} in
${flags.join('\n')}
  esac
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
    return
  fi
  case \${COMP_WORDS[1]} in
    ${named.join(' | ')})
      mapfile -t COMPREPLY < <(compgen -W "$("\${COMP_WORDS[0]}" get -o name 2>/dev/null)" -- "$current")
      ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
  esac
}
complete -F _cijob cijob
`;
}

function fish(commands: readonly Described[]): string {
  const first = commands.map(
    ({ name, summary }) => `complete -c cijob -n __fish_use_subcommand -f -a ${name} -d '${summary}'`,
  );
  const flags = commands.flatMap(({ name, flags: of }) =>
    of.map((flag) => `complete -c cijob -n '__fish_seen_subcommand_from ${name}' -l ${flag.slice(2)}`),
  );
  const names = `complete -c cijob -n '__fish_seen_subcommand_from ${named.join(' ')}' -f -a '(cijob get -o name 2>/dev/null)'`;
  return `${[...first, ...flags, names].join('\n')}\n`;
}
