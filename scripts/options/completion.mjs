// Completion for bash, zsh and fish: commands, their options, and the mount options after -o.

const HEAD = `# Generated from src/config/table.ts and src/cli/commands by scripts/options.mjs: npm run generate`

/** Arguments and option values that are paths, by their names. */
const DIRECTORIES = new Set(['mountpoint'])
const FILES = new Set(['file'])

const isMountList = ({ long }) => long === '--options'

/** Commands at the end of the tree, with their path below the program: `mount`, `server start`. */
const leaves = (commands, path = []) =>
  commands.flatMap(command => {
    const own = [...path, command.name]
    return command.commands.length === 0
      ? [{ ...command, path: own }]
      : leaves(command.commands, own)
  })

/** What may stand for an alias in the shells' patterns. */
const namesOf = ({ name, aliases }) => [name, ...aliases]

/** Names of mount options with `=` if a value has to follow. */
const words = ({ offered }) =>
  offered.flatMap(row =>
    row.names.map(name => ({
      name,
      row,
      takesValue: row.value !== 'none' && row.value !== 'any',
      choices: typeof row.value === 'string' ? [] : row.value,
      isDirectory: row.value === 'paths' || (row.value === 'path' && !name.startsWith('log')),
      isList: row.value === 'paths',
      isFile: row.value === 'path' && name.startsWith('log'),
      /** A line of help, without characters that shells treat specially. */
      help: (row.help ?? row.text).replaceAll(/[`"$\\]/g, ''),
    })),
  )

const unique = list => [...new Set(list)]

// --- bash

const bashOptions = ({ options }) =>
  unique(options.flatMap(({ short, long }) => [short, long])).filter(Boolean)

const bashValueCases = commands => {
  const seen = new Map()
  for (const { options } of commands)
    for (const option of options) {
      if (option.argument === undefined) continue
      const flags = [option.short, option.long].filter(Boolean).join('|')
      const action = isMountList(option)
        ? '_tsoverlay_mount_options "$cur"'
        : option.choices.length > 0
          ? `_tsoverlay_reply "$cur" "${option.choices.join(' ')}"`
          : FILES.has(option.argument)
            ? '_tsoverlay_paths "$cur" -f'
            : ':'
      seen.set(flags, `    ${flags}) ${action}; return ;;`)
    }
  return [...seen.values()].join('\n')
}

const bashPaths = command => {
  const names = command.arguments.map(argument => argument.name)
  if (names.some(name => DIRECTORIES.has(name))) return '_tsoverlay_paths "$cur" -d'
  if (names.some(name => FILES.has(name))) return '_tsoverlay_paths "$cur" -f'
  return ':'
}

export const bash = model => {
  const { program } = model
  const all = leaves(program.commands)
  const options = words(model)
  const groups = program.commands.filter(({ commands }) => commands.length > 0)
  const pathOf = command =>
    command.path.length === 1 ? namesOf(command).join('|') : `"${command.path.join(' ')}"`
  return `# bash completion for tsoverlay: source this file, or copy it into
# ~/.local/share/bash-completion/completions/ as tsoverlay.
${HEAD}

# The candidates of the word list $2 that begin with $1.
_tsoverlay_reply() {
  local IFS=$' \\t\\n'
  COMPREPLY=($(compgen -W "$2" -- "$1"))
}

# The paths that begin with $1; $2 is -d for directories or -f for files. $3 stands before each.
_tsoverlay_paths() {
  local path
  COMPREPLY=()
  while IFS= read -r path; do
    [[ -d $path ]] && path+=/
    COMPREPLY+=("\${3-}$path")
  done < <(compgen "$2" -- "$1")
  compopt -o nospace 2>/dev/null
}

# The last option of the comma-separated list $1. The candidates are whole lists.
_tsoverlay_mount_options() {
  local before= item=$1 name value
  [[ $1 == *,* ]] && before=\${1%,*}, item=\${1##*,}
  compopt -o nospace 2>/dev/null
  name=\${item%%=*}
  value=\${item#*=}
  if [[ $item != *=* ]]; then
    _tsoverlay_reply "$item" "${options
      .map(({ name, takesValue }) => (takesValue ? `${name}=` : name))
      .join(' ')}"
    COMPREPLY=("\${COMPREPLY[@]/#/$before}")
    return
  fi
  case $name in
${options
  .filter(({ choices }) => choices.length > 0)
  .map(({ name, choices }) => `    ${name}) _tsoverlay_reply "$value" "${choices.join(' ')}" ;;`)
  .join('\n')}
    ${options
      .filter(({ isDirectory, isList }) => isDirectory && !isList)
      .map(({ name }) => name)
      .join('|')}) _tsoverlay_paths "$value" -d ;;
    ${options
      .filter(({ isList }) => isList)
      .map(({ name }) => name)
      .join('|')})
      if [[ $value == *:* ]]; then
        _tsoverlay_paths "\${value##*:}" -d "\${value%:*}:"
      else
        _tsoverlay_paths "$value" -d
      fi
      ;;
    ${options
      .filter(({ isFile }) => isFile)
      .map(({ name }) => name)
      .join('|')}) _tsoverlay_paths "$value" -f ;;
  esac
  COMPREPLY=("\${COMPREPLY[@]/#/$before$name=}")
}

# bash splits words at = and :, and replaces only what follows the last of them in the word $1.
_tsoverlay_trim() {
  local breaks= prefix i
  [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
  [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
  [[ -n $breaks && $1 == *[$breaks]* ]] || return
  prefix=\${1%"\${1##*[$breaks]}"}
  for i in "\${!COMPREPLY[@]}"; do COMPREPLY[i]=\${COMPREPLY[i]#"$prefix"}; done
}

_tsoverlay_complete() {
  local cur=$1 prev=$2 command=$3
  case $prev in
${bashValueCases(all)}
  esac
  case $command in
    '') _tsoverlay_reply "$cur" "${[...program.commands.flatMap(namesOf), ...bashOptions(program)].join(' ')}" ;;
${groups
  .map(
    ({ name, commands }) =>
      `    ${name}) _tsoverlay_reply "$cur" "${commands.flatMap(namesOf).join(' ')}" ;;`,
  )
  .join('\n')}
${all
  .map(
    command => `    ${pathOf(command)})
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "${bashOptions(command).join(' ')}"
      else
        ${bashPaths(command)}
      fi
      ;;`,
  )
  .join('\n')}
  esac
}

_tsoverlay() {
  local line=\${COMP_LINE:0:COMP_POINT} cur= prev= command= word i
  local -a words
  read -ra words <<<"$line"
  if [[ $line != *[[:space:]] ]]; then
    cur=\${words[-1]}
    unset 'words[-1]'
  fi
  ((\${#words[@]} > 1)) && prev=\${words[-1]}
  for ((i = 1; i < \${#words[@]}; i++)); do
    word=\${words[i]}
    case $command:$word in
      :${program.commands.flatMap(namesOf).join(' | :')}) command=$word ;;
      ${groups
        .flatMap(({ name, commands }) => commands.flatMap(namesOf).map(sub => `${name}:${sub}`))
        .join(' | ')}) command+=" $word" ;;
    esac
  done
  COMPREPLY=()
  _tsoverlay_complete "$cur" "$prev" "$command"
  _tsoverlay_trim "$cur"
}

complete -F _tsoverlay tsoverlay
`
}

// --- zsh

const quote = text => `'${text.replaceAll("'", `'\\''`)}'`
const zshText = text => text.replaceAll(/[[\]:\\]/g, String.raw`\$&`)

const zshAction = ({ argument, choices, ...option }) =>
  isMountList(option)
    ? '_tsoverlay_mount_options'
    : choices.length > 0
      ? `(${choices.join(' ')})`
      : FILES.has(argument)
        ? '_files'
        : ' '

const zshOption = option => {
  const { short, long, argument, description } = option
  const flags = [short, long].filter(Boolean)
  const excludes = isMountList(option) ? '*' : `(${flags.join(' ')})`
  return flags.map(flag => {
    const takes = argument === undefined ? '' : flag.startsWith('--') ? '=' : '+'
    const value = argument === undefined ? '' : `:${argument}:${zshAction(option)}`
    return quote(`${excludes}${flag}${takes}[${zshText(description)}]${value}`)
  })
}

const zshArgument = ({ name, variadic }) =>
  quote(
    `${variadic ? '*' : ''}:${name}:${DIRECTORIES.has(name) ? '_files -/' : FILES.has(name) ? '_files' : ' '}`,
  )

const zshArguments = ({ options, arguments: arguments_ }, indent) =>
  ['_arguments -s -S', ...options.flatMap(zshOption), ...arguments_.map(zshArgument)].join(
    ` \\\n${indent}  `,
  )

const zshMountOption = ({ name, help, takesValue, choices, isList, isDirectory, isFile }) => {
  const action =
    choices.length > 0
      ? `(${choices.join(' ')})`
      : isList
        ? '_tsoverlay_layers'
        : isDirectory
          ? '_files -/'
          : isFile
            ? '_files'
            : ' '
  return quote(`*${name}[${zshText(help)}]${takesValue ? `:value:${action}` : ''}`)
}

const zshDescribe = (commands, indent) =>
  commands
    .flatMap(command => namesOf(command).map(name => `${name}:${command.description}`))
    .map(text =>
      quote(text.replace(/:(.*)$/s, (_, rest) => `:${rest.replaceAll(':', String.raw`\:`)}`)),
    )
    .join(`\n${indent}`)

const zshCommand = (command, path) => {
  const body =
    command.commands.length > 0
      ? `      ${path}_${command.name}`
      : `      ${zshArguments(command, '      ')}`
  return `    ${namesOf(command).join('|')})\n${body}\n      ;;`
}

/** A function for a command with subcommands, behind those for its subcommands. */
const zshFunction = ({ options, commands }, path) => {
  const below = commands
    .filter(sub => sub.commands.length > 0)
    .map(sub => `${zshFunction(sub, `${path}_${sub.name}`)}\n`)
  return `${below.join('')}${path}() {
  local line state
  _arguments -C ${options.flatMap(zshOption).join(' ')} '1:command:->command' '*::argument:->argument'
  case $state in
  command)
    local -a commands=(
      ${zshDescribe(commands, '      ')}
    )
    _describe command commands
    ;;
  argument)
    case $line[1] in
${commands.map(sub => zshCommand(sub, path)).join('\n')}
    esac
    ;;
  esac
}
`
}

export const zsh = model => `#compdef tsoverlay
# zsh completion for tsoverlay: copy this file into a directory of fpath.
${HEAD}

_tsoverlay_layers() {
  compset -P '*:'
  _files -/ -S ''
}

_tsoverlay_mount_options() {
  _values -s , 'mount option' \\
    ${words(model).map(zshMountOption).join(' \\\n    ')}
}

${zshFunction(model.program, '_tsoverlay')}
_tsoverlay "$@"
`

// --- fish

const fishQuote = text => `'${text.replaceAll(/[\\']/g, String.raw`\$&`)}'`

const fishCondition = ({ path, ...command }) =>
  path.length === 1
    ? `__fish_seen_subcommand_from ${namesOf(command).join(' ')}`
    : path.map(name => `__fish_seen_subcommand_from ${name}`).join('; and ')

const fishOption = (condition, option) => {
  const { short, long, argument, choices, description } = option
  const value =
    argument === undefined
      ? ''
      : isMountList(option)
        ? " -x -a '(__tsoverlay_mount_options)'"
        : choices.length > 0
          ? ` -x -a ${fishQuote(choices.join(' '))}`
          : FILES.has(argument)
            ? ' -r -F'
            : ' -x'
  const flags = [
    short === undefined ? '' : ` -s ${short.slice(1)}`,
    long === undefined ? '' : ` -l ${long.slice(2)}`,
  ].join('')
  return `complete -c tsoverlay -n ${fishQuote(condition)}${flags}${value} -d ${fishQuote(description)}`
}

const fishArguments = command => {
  const names = command.arguments.map(argument => argument.name)
  const condition = fishQuote(fishCondition(command))
  if (names.some(name => DIRECTORIES.has(name)))
    return [`complete -c tsoverlay -n ${condition} -a '(__fish_complete_directories)'`]
  return names.some(name => FILES.has(name)) ? [`complete -c tsoverlay -n ${condition} -F`] : []
}

export const fish = model => {
  const { program } = model
  const all = leaves(program.commands)
  const options = words(model)
  const groups = program.commands.filter(({ commands }) => commands.length > 0)
  return `# fish completion for tsoverlay: copy this file into ~/.config/fish/completions/.
${HEAD}

# The last option of the comma-separated list on the command line. The candidates are whole lists.
function __tsoverlay_mount_options
    set -l list (commandline -ct)
    set -l before (string match -r '^.*,' -- $list)
    set -l item (string replace -r '^.*,' '' -- $list)
    set -l name (string replace -r '=.*' '' -- $item)
    set -l value (string replace -r '^[^=]*=' '' -- $item)
    if not string match -q '*=*' -- $item
        printf "$before%s\\t%s\\n" \\
            ${options
              .map(
                ({ name, takesValue, help }) =>
                  `${fishQuote(takesValue ? `${name}=` : name)} ${fishQuote(help)}`,
              )
              .join(' \\\n            ')}
        return
    end
    switch $name
${options
  .filter(({ choices }) => choices.length > 0)
  .map(
    ({ name, choices }) =>
      `        case ${fishQuote(name)}\n            printf "$before$name=%s\\n" ${choices.join(' ')}`,
  )
  .join('\n')}
        case ${options
          .filter(({ isDirectory }) => isDirectory)
          .map(({ name }) => fishQuote(name))
          .join(' ')}
            set -l upto (string match -r '^.*:' -- $value)
            set -l path (string replace -r '^.*:' '' -- $value)
            for found in (__fish_complete_directories $path '')
                printf "$before$name=$upto%s\\n" $found
            end
    end
end

complete -c tsoverlay -f
${program.options.map(option => fishOption('__fish_use_subcommand', option)).join('\n')}
${program.commands
  .flatMap(command =>
    namesOf(command).map(
      name =>
        `complete -c tsoverlay -n __fish_use_subcommand -a ${name} -d ${fishQuote(command.description)}`,
    ),
  )
  .join('\n')}
${groups
  .flatMap(group => {
    const names = group.commands.flatMap(namesOf)
    const condition = `__fish_seen_subcommand_from ${group.name}; and not __fish_seen_subcommand_from ${names.join(' ')}`
    return group.commands.map(
      ({ name, description }) =>
        `complete -c tsoverlay -n ${fishQuote(condition)} -a ${name} -d ${fishQuote(description)}`,
    )
  })
  .join('\n')}
${all
  .flatMap(command => [
    ...command.options.map(option => fishOption(fishCondition(command), option)),
    ...fishArguments(command),
  ])
  .join('\n')}
`
}
