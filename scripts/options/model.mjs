// What the generated files have in common: the table, and commander's objects in plain form.

/** Fates of options that `tsoverlay mount -o` accepts and that are worth completing. */
const OFFERED = new Set(['set', 'checked', 'flag', 'fstab', 'remount'])

/** @returns the text that addHelpText('after', ...) has added */
const textAfter = command => {
  let text = ''
  command.emit('afterHelp', { error: false, command, write: part => (text += part) })
  return text.trim()
}

const optionOf = help => option => ({
  short: option.short,
  long: option.long,
  /** The name of its value, if it takes one. */
  argument: /<(.+)>/.exec(option.flags)?.[1],
  choices: option.argChoices ?? [],
  description: option.description,
  /** With choices and default; that of a switch is always false. */
  full: help.optionDescription(option).replace(/ \(default: false\)$/, ''),
})

const commandOf = command => {
  const help = command.createHelp()
  return {
    name: command.name(),
    aliases: command.aliases(),
    description: command.description(),
    usage: command.usage(),
    arguments: command.registeredArguments.map(argument => ({
      name: argument.name(),
      required: argument.required,
      variadic: argument.variadic,
      description: argument.description,
    })),
    options: help.visibleOptions(command).map(optionOf(help)),
    after: textAfter(command),
    commands: command.commands.map(commandOf),
  }
}

const never = async () => {}
const actions = {
  ...Object.fromEntries(
    ['mount', 'umount', 'ls', 'stats', 'which', 'top'].map(name => [name, never]),
  ),
  server: { start: never, stop: never, status: never },
}

export const modelOf = ({ table, rows, usageOf, createProgram, ExitCode }) => ({
  table,
  rows,
  usageOf,
  exitCodes: ExitCode,
  program: commandOf(createProgram('', actions)),
  /** The rows to complete. */
  offered: rows.filter(row => OFFERED.has(row.fate)),
})
