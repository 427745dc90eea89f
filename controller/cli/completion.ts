export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** A script for the shell that has the program itself say what can come next (see complete.ts). */
export function completion(shell: Shell): string {
  return { bash, zsh, fish }[shell];
}

const bash = `_cijob() {
  local word
  COMPREPLY=()
  while IFS=$'\\t' read -r word _; do
    case $word in
      :0) compopt -o default ;;
      :*) ;;
      "\${COMP_WORDS[COMP_CWORD]}"*) COMPREPLY+=("$word") ;;
    esac
  done < <("\${COMP_WORDS[0]}" __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _cijob cijob
`;

const zsh = `#compdef cijob
_cijob() {
  local line files=''
  local -a candidates
  for line in "\${(@f)$("\${words[1]}" __complete -- "\${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      :0) files=1 ;;
      :*) ;;
      *$'\\t'*) candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}") ;;
      ?*) candidates+=("\${line//:/\\\\:}") ;;
    esac
  done
  if [[ -n $files ]]; then
    _files
  else
    _describe cijob candidates
  fi
}
if [[ \${funcstack[1]-} == _cijob ]]; then
  _cijob "$@"
else
  compdef _cijob cijob
fi
`;

const fish = `function __cijob_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  for line in ($words[1] __complete -- $words[2..-1] "$current" 2>/dev/null)
    switch $line
      case ':0'
        __fish_complete_path "$current"
      case ':*'
      case '*'
        echo $line
    end
  end
end
complete -c cijob -f -a '(__cijob_complete)'
`;
