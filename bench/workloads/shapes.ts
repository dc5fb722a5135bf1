/** Shapes of trees: folders of few and of many names, shallow and deep paths; and mounting itself. */

import * as fs from 'node:fs'
import * as sys from '../measure/calls.js'
import { inFolder } from '../measure/files.js'
import { TREE } from './layers.js'
import {
  each,
  scaled,
  step,
  type Lowers,
  type Place,
  type Step,
  type Workload,
} from './workload.js'

const shown = (count: number): string => count.toLocaleString('en')

/** So many names in each of so many folders. */
interface Crowd {
  names: number
  folders: number
}

/** At another scale there are other folders, or, of a single one, other names in it. */
const atScale = ({ names, folders }: Crowd, scale: number): Crowd =>
  folders > 1
    ? { names, folders: scaled(folders, scale) }
    : { names: scaled(names, scale), folders }

const foldersOf = (root: string, { folders }: Crowd): string[] =>
  Array.from({ length: folders }, (_, n) => `${root}/folder${n}`)

const namesOf = (root: string, crowd: Crowd): string[] =>
  foldersOf(root, crowd).flatMap(folder =>
    Array.from({ length: crowd.names }, (_, n) => `${folder}/name${n}`),
  )

/** Lists each folder to its end; `more` names of each are not the lower layer's. */
const list =
  (crowd: Crowd, more: number): Step['prepare'] =>
  ({ root, scale }) => {
    const { names, folders } = atScale(crowd, scale)
    const expected = (names + more) * folders
    const paths = foldersOf(root, atScale(crowd, scale))
    return () => {
      let count = 0
      for (const at of paths) inFolder(at, dir => sys.readDir(dir, () => count++))
      if (count !== expected) throw new Error(`listed ${count} names of ${expected}`)
      return count
    }
  }

/** One name more in each folder, so that it is merged of two layers and no earlier listing is valid. */
const listMerged =
  (crowd: Crowd): Step['prepare'] =>
  place => {
    for (const folder of foldersOf(place.root, atScale(crowd, place.scale)))
      sys.close(sys.open(sys.path(`${folder}/new`), sys.O.WRONLY | sys.O.CREAT))
    return list(crowd, 1)(place)
  }

const crowded = (crowd: Crowd): Workload => {
  const { names, folders } = crowd
  const what = `${folders === 1 ? 'a folder' : `${shown(folders)} folders`} of ${shown(names)} names`
  const lowers: Lowers = {
    name: `crowd-${names}`,
    count: 1,
    build(folder, scale) {
      const here = atScale(crowd, scale)
      for (const at of foldersOf(`${folder}/0`, here)) fs.mkdirSync(at)
      for (const at of namesOf(`${folder}/0`, here)) fs.closeSync(fs.openSync(at, 'w'))
    },
  }
  const statAll = each(({ root, scale }) => namesOf(root, atScale(crowd, scale)), sys.lstat)
  return {
    name: `folder-${names}`,
    lowers,
    steps: [
      step('cold', `list ${what}, cold`, list(crowd, 0)),
      step('warm', `list ${what}, warm`, list(crowd, 0)),
      step('merged', `list ${what} and one in the upper layer`, listMerged(crowd)),
      step('stat', `stat of all names in ${what}`, statAll),
    ],
  }
}

/** Folders in all chains of one depth together: a cold look at any of them is as much work. */
const CHAINED = 3000
const WARM_LOOKS = 2000

/** Chains of folders, with a file at the end of each. */
const deep = (depth: number): Workload => {
  const filesOf = (root: string, scale: number): string[] =>
    Array.from(
      { length: scaled(CHAINED / depth, scale) },
      (_, chain) => `${root}/chain${chain}${'/deeper'.repeat(depth - 1)}/file`,
    )
  const lowers: Lowers = {
    name: `deep-${depth}`,
    count: 1,
    build(folder, scale) {
      for (const at of filesOf(`${folder}/0`, scale)) {
        fs.mkdirSync(at.slice(0, at.lastIndexOf('/')), { recursive: true })
        fs.writeFileSync(at, 'deep')
      }
    },
  }
  const once = ({ root, scale }: Place): string[] => filesOf(root, scale)
  const again = (place: Place): string[] => {
    const files = once(place)
    return Array.from(
      { length: scaled(WARM_LOOKS, place.scale) },
      (_, n) => files[n % files.length] as string,
    )
  }
  return {
    name: `depth-${depth}`,
    lowers,
    steps: [
      step('cold', `stat of files ${depth} folders deep, cold`, each(once, sys.lstat)),
      step('warm', `stat of files ${depth} folders deep, warm`, each(again, sys.lstat)),
    ],
  }
}

export const shapes: Workload[] = [
  {
    name: 'mount',
    lowers: TREE,
    mountTitle: 'mount, from the command to the first answer',
    unmountTitle: 'unmount, until the server has ended',
    steps: [],
  },
  crowded({ names: 10, folders: 1000 }),
  crowded({ names: 1000, folders: 10 }),
  crowded({ names: 10_000, folders: 1 }),
  crowded({ names: 100_000, folders: 1 }),
  deep(2),
  deep(10),
  deep(60),
]
