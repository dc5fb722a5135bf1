/**
 * `tsoverlay which`: prints the layer and the real path that serve a file of a union, and the
 * reason.
 */

import { realpathSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'

import { MountError } from '../../errors.js'
import { mountedUnions, type Mounted } from '../../host/mounted-unions.js'
import { readMountInfo } from '../../host/proc-mounts.js'
import type { Explanation, Real, Step } from '../../overlay/namei/which.js'
import { askWhich } from '../../resident/ask.js'
import { absolute } from '../../config/syntax.js'
import { oneWord, table } from '../table.js'
import { workingDirectory } from '../working-directory.js'

export interface Which extends Omit<Explanation, 'path' | 'whole'> {
  /**
   * The explained path: the file, or the first name on its path that is missing or is not a
   * directory.
   */
  path: string
  mountpoint: string
}

/** Resolves symlinks in the longest existing parent path. The last component is not followed. */
const realPathOf = (path: string): string => {
  const given = resolve(absolute(path, workingDirectory()))
  let rest = ''
  for (let at = given; at !== '/'; at = dirname(at)) {
    rest = `/${basename(at)}${rest}`
    try {
      return resolve(`${realpathSync.native(dirname(at))}${rest}`)
    } catch {
      // the parent may be hidden by the union
    }
  }
  return given
}

const isBelow = (path: string, top: string): boolean =>
  top === '/' || path === top || path.startsWith(`${top}/`)

/** The mount that shows a path: the topmost mount on the deepest mountpoint above the path. */
const mountOver = (path: string): Mounted | undefined => {
  let deepest = ''
  let id = -1
  for (const mount of readMountInfo()) {
    if (!isBelow(path, mount.mountpoint) || mount.mountpoint.length < deepest.length) continue
    deepest = mount.mountpoint
    id = mount.id
  }
  return mountedUnions().find(({ mount }) => mount.id === id)
}

/** @throws {MountError} */
export const whichOf = async (file: string): Promise<Which> => {
  const failure = (what: string, code: string): MountError =>
    new MountError(`${file}: ${what}`, { option: 'file', path: file, code })
  const path = realPathOf(file)
  const found = mountOver(path)
  if (found === undefined) throw failure('is in no union; list them with: tsoverlay ls', 'EINVAL')
  const { mount, server } = found
  const [pid] = server?.pids ?? []
  if (pid === undefined || server?.marker === undefined)
    throw failure(
      `can't be determined: the server of ${mount.mountpoint} is another user's`,
      'EPERM',
    )
  const { mountpoint } = mount
  const rest = path.slice(mountpoint === '/' ? 0 : mountpoint.length)
  // A bind mount of the union may show a subdirectory of it.
  const root = mount.root === '/' ? '' : mount.root
  const inUnion = `${root}${rest}` || '/'
  const answer = await askWhich(pid, server.marker.questions, mount.device, inUnion)
  if (answer === undefined)
    throw failure(
      `can't be determined: process ${pid} does not answer; it is stopped or busy, the path is too long, or the transport is fuse-native`,
      'EIO',
    )
  if ('error' in answer) throw failure(`can't be determined: ${answer.error}`, 'EIO')
  const { whole, path: explained, ...explanation } = answer
  if (!whole && explanation.type !== null) throw failure(`${explained} is no directory`, 'ENOTDIR')
  const below = isBelow(explained, root) ? explained.slice(root.length) : explained
  return { path: `${mountpoint === '/' ? '' : mountpoint}${below}`, mountpoint, ...explanation }
}

const layerName = (layer: number): string => (layer === 0 ? 'upper' : `lower ${layer}`)

/** Why a layer contributes to the result, or does not. */
const reasonOf = (step: Step, { served, data, type }: Pick<Which, 'served' | 'data' | 'type'>) => {
  const serves = served.some(real => real.layer === step.layer)
  switch (step.found) {
    case 'nothing':
      return data?.layer === step.layer ? 'has the data' : 'has no such name'
    case 'unreached':
      return serves ? 'serves by a redirect' : 'has no such directory, or it is hidden'
    case 'hidden':
      return data?.layer === step.layer
        ? 'has the data'
        : serves
          ? 'serves by a redirect'
          : 'is hidden'
    case 'whiteout':
      return type === null ? 'whiteout: the name is deleted' : 'whiteout: hides what is below'
    case 'file':
      if (!serves) return 'was copied up by another name'
      return data === null ? 'serves' : 'serves all but the data'
    case 'directory': {
      const what = served.length > 1 ? 'is merged' : 'serves'
      if (step.opaque) return `${what}; opaque: hides what is below`
      return step.redirect === null
        ? what
        : `${what}; redirect: the layers below have it as ${oneWord(step.redirect)}`
    }
  }
}

const realLine = (real: Real): string => `${layerName(real.layer)}: ${oneWord(real.path)}`

export const asText = (which: Which): string[] => {
  const { path, type, served, data, steps } = which
  const rows = [['path', oneWord(path)]]
  rows.push(['type', type ?? 'none: there is no such name'])
  served.forEach((real, i) => rows.push([i === 0 ? 'served by' : '', realLine(real)]))
  if (data !== null) rows.push(['data in', realLine(data)])
  if (steps.length === 0) return table(rows, new Set())
  const reasons = steps.map(step => [
    layerName(step.layer),
    reasonOf(step, which),
    step.path === null ? '' : oneWord(step.path),
  ])
  return [
    ...table(rows, new Set()),
    '',
    ...table([['LAYER', 'WHY', 'LOOKED AT'], ...reasons], new Set()),
  ]
}

/** @returns whether the name exists */
export const showWhich = async (file: string, json: boolean): Promise<boolean> => {
  const which = await whichOf(file)
  if (json) console.log(JSON.stringify(which))
  else for (const line of asText(which)) console.log(line)
  return which.type !== null
}
