// Finds calls whose result is thrown away, though it may say that a system call failed. Where that
// is meant, `void` says so, and a comment why. close(2) is left out: the descriptor is gone
// whatever it answers. So is the signal of an eventfd, which fails only where it has been given as
// often as can be counted.
//
// Usage: node scripts/lint-results.mjs    (part of `npm run lint`)
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const DIRECTORIES = ['src/sys/', 'src/overlay/']
const LEFT_OUT = new Set(['close', 'closeNow', 'eventfdSignal'])

const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), path => ts.sys.readFile(path))
const { fileNames, options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
const program = ts.createProgram(fileNames, options)
const checker = program.getTypeChecker()

/**
 * Whether the declared type of what is called has `Result` in it: an alias of number, so only its
 * name tells.
 */
const givesResult = call => {
  const declaration = checker.getResolvedSignature(call)?.declaration
  const type = declaration?.type?.getText() ?? ''
  return /\bResult\b/.test(type)
}

/**
 * What a statement throws away: the call itself, or the last of `a && b`, `a ? b : c`, `a || b`.
 */
const thrownAway = expression => {
  if (ts.isParenthesizedExpression(expression)) return thrownAway(expression.expression)
  if (ts.isConditionalExpression(expression))
    return [...thrownAway(expression.whenTrue), ...thrownAway(expression.whenFalse)]
  if (ts.isBinaryExpression(expression)) {
    const kind = expression.operatorToken.kind
    const logical =
      kind === ts.SyntaxKind.AmpersandAmpersandToken ||
      kind === ts.SyntaxKind.BarBarToken ||
      kind === ts.SyntaxKind.QuestionQuestionToken
    return logical ? thrownAway(expression.right) : []
  }
  return ts.isCallExpression(expression) ? [expression] : []
}

let count = 0
const look = (file, node) => {
  if (ts.isExpressionStatement(node))
    for (const call of thrownAway(node.expression)) {
      const name = call.expression.getText().split('.').at(-1)
      if (LEFT_OUT.has(name) || !givesResult(call)) continue
      const { line } = file.getLineAndCharacterOfPosition(call.getStart())
      console.error(
        `${relative(root, file.fileName)}:${line + 1}: the result of ${name} is thrown away`,
      )
      count++
    }
  ts.forEachChild(node, child => look(file, child))
}
for (const file of program.getSourceFiles()) {
  const path = relative(root, file.fileName)
  if (DIRECTORIES.some(directory => path.startsWith(directory))) look(file, file)
}
process.exit(count > 0 ? 1 : 0)
