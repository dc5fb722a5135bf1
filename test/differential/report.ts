/** Formats a divergence as text. */

import type { Call } from './calls.js'
import { placesOf, showCall, showText, slotsOf } from './calls.js'
import { showResult } from './compare.js'
import type { Case } from './reduce.js'
import type { Divergence, Step } from './run.js'
import type { EntrySpec } from './stack.js'

const octal = (mode: number): string => `0${mode.toString(8)}`

const showEntry = (e: EntrySpec): string => {
  const parts = [showText(e.path), e.kind]
  if (e.kind === 'symlink' || e.kind === 'link') parts.push('->', showText(e.target))
  if (e.kind !== 'link' && e.kind !== 'whiteout' && e.kind !== 'xwhiteout')
    parts.push(octal(e.mode), `${e.uid}:${e.gid}`)
  if (e.kind === 'file')
    parts.push(`${e.size} bytes`, ...e.chunks.map(c => `data ${c.at}+${c.length}`))
  if (e.opaque && e.kind === 'dir') parts.push('opaque')
  for (const [name, value] of e.xattrs) parts.push(`${showText(name)}=${value.slice(0, 80)}`)
  return parts.join(' ')
}

/** The last steps that use the same paths or slots as the failing call. */
const related = (trace: Step[], last: Call): string[] => {
  const stems = placesOf(last.action).map(p => p.path)
  const slots = new Set(slotsOf(last.action))
  const touches = (call: Call): boolean =>
    slotsOf(call.action).some(slot => slots.has(slot)) ||
    placesOf(call.action).some(({ path }) =>
      stems.some(s => s === path || s.startsWith(`${path}/`) || path.startsWith(`${s}/`)),
    )
  const out: string[] = []
  for (let i = trace.length - 2; i >= 0 && out.length < 12; i--) {
    const step = trace[i]
    if (step && touches(step.call))
      out.unshift(`    ${i}: ${showCall(step.call)} = ${showResult(step.ret)}`)
  }
  return out
}

const showMismatches = (divergence: Divergence): string[] => {
  const shown: string[] = []
  for (const m of divergence.mismatches.slice(0, 12))
    shown.push(
      `  ${m.field}`,
      `    expected ${showText(m.expected)}`,
      `    got      ${showText(m.got)}`,
    )
  if (divergence.mismatches.length > 12)
    shown.push(`  … and ${divergence.mismatches.length - 12} more`)
  return shown
}

export const showDivergence = (seed: number, divergence: Divergence): string => {
  const { trace } = divergence
  const last = trace.at(-1)
  const duringCall = divergence.mismatches[0]?.action !== null
  const out = [`seed ${seed}: diverged at step ${trace.length - 1}`]
  if (last && duringCall) out.push(`  ${showCall(last.call)}`)
  else out.push('  after the last call')
  out.push(...showMismatches(divergence))
  if (last && duringCall) {
    const before = related(trace, last.call)
    if (before.length > 0) out.push('  earlier on the same paths or slots:', ...before)
  }
  return out.join('\n')
}

export const showCase = (reduced: Case, divergence: Divergence): string => {
  const { stack } = reduced
  const out = [
    '  reduced to:',
    `    redirect_dir=${stack.redirectDir}${stack.metacopy ? ' metacopy=on' : ''}`,
  ]
  const layer = (name: string, entries: EntrySpec[]): void => {
    out.push(`    ${name}:`)
    for (const e of entries) out.push(`      ${showEntry(e)}`)
  }
  if (stack.upper !== null) layer('upper', stack.upper)
  stack.lowers.forEach((entries, i) => layer(`lower ${i}`, entries))
  divergence.trace.forEach((step, i) =>
    out.push(`    ${i}: ${showCall(step.call)} = ${showResult(step.ret)}`),
  )
  out.push(...showMismatches(divergence).map(line => `  ${line}`))
  return out.join('\n')
}
