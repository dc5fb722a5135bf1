// Finds calls whose result is discarded although it may report a failed system call. If the discard
// is intended, the code uses `void`, and a comment explains why. close(2) is excluded, because the
// descriptor is released in any case. eventfdSignal is excluded, because it fails only if the
// counter is at its maximum.
//
// Usage: node scripts/lint-results.mjs (part of `npm run lint`)
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const DIRECTORIES = ['src/sys/', 'src/overlay/']
const EXCLUDED = new Set(['close', 'closeNow', 'eventfdSignal'])

const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), path => ts.sys.readFile(path))
const { fileNames, options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
const program = ts.createProgram(fileNames, options)
const checker = program.getTypeChecker()

/**
 * Whether the declared return type contains `Result`. That is an alias of number, so only its name
 * can be checked.
 */
const returnsResult = call => {
  const declaration = checker.getResolvedSignature(call)?.declaration
  const type = declaration?.type?.getText() ?? ''
  return /\bResult\b/.test(type)
}

/**
 * The calls whose result a statement discards: the expression itself, or the last operand of `a &&
 * b`, `a ? b : c`, `a || b`.
 */
const discardedCalls = expression => {
  if (ts.isParenthesizedExpression(expression)) return discardedCalls(expression.expression)
  if (ts.isConditionalExpression(expression))
    return [...discardedCalls(expression.whenTrue), ...discardedCalls(expression.whenFalse)]
  if (ts.isBinaryExpression(expression)) {
    const kind = expression.operatorToken.kind
    const logical =
      kind === ts.SyntaxKind.AmpersandAmpersandToken ||
      kind === ts.SyntaxKind.BarBarToken ||
      kind === ts.SyntaxKind.QuestionQuestionToken
    return logical ? discardedCalls(expression.right) : []
  }
  return ts.isCallExpression(expression) ? [expression] : []
}

let count = 0
const visit = (file, node) => {
  if (ts.isExpressionStatement(node))
    for (const call of discardedCalls(node.expression)) {
      const name = call.expression.getText().split('.').at(-1)
      if (EXCLUDED.has(name) || !returnsResult(call)) continue
      const { line } = file.getLineAndCharacterOfPosition(call.getStart())
      console.error(
        `${relative(root, file.fileName)}:${line + 1}: the result of ${name} is discarded`,
      )
      count++
    }
  ts.forEachChild(node, child => visit(file, child))
}
for (const file of program.getSourceFiles()) {
  const path = relative(root, file.fileName)
  if (DIRECTORIES.some(directory => path.startsWith(directory))) visit(file, file)
}
process.exit(count > 0 ? 1 : 0)
