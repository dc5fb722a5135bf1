/** git in a repository of the lower layer. */

import * as fs from 'node:fs'
import * as path from 'node:path'
import { scaled, step, type LowerLayers, type Step, type Workload } from '../work.js'
import { expect, run } from './tools.js'

const filesOf = (repository: string, scale: number): string[] =>
  Array.from(
    { length: scaled(5000, scale) },
    (_, n) => `${repository}/area${Math.floor(n / 500)}/part${Math.floor(n / 25)}/file${n}`,
  )

/** git without the settings of the machine and of its users. */
const git = (repository: string, ...args: string[]): string =>
  run(['git', '-C', repository, ...args], {
    env: {
      GIT_CONFIG_GLOBAL: '/dev/null',
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_AUTHOR_NAME: 'bench',
      GIT_AUTHOR_EMAIL: 'bench@localhost',
      GIT_COMMITTER_NAME: 'bench',
      GIT_COMMITTER_EMAIL: 'bench@localhost',
    },
  })

/** All times are old: git reads a file again each time if it is as new as the index. */
const LONG_AGO = new Date('2020-01-01')

/** 5,000 committed files, of which one has been changed, and one untracked file. */
const REPOSITORY: LowerLayers = {
  name: 'repository',
  count: 1,
  build(directory, scale) {
    const repository = `${directory}/0/repository`
    const files = filesOf(repository, scale)
    for (const [n, file] of files.entries()) {
      fs.mkdirSync(path.dirname(file), { recursive: true })
      fs.writeFileSync(file, `line of file ${n}\n`.repeat(50))
      fs.utimesSync(file, LONG_AGO, LONG_AGO)
    }
    git(repository, 'init', '--quiet')
    git(repository, 'add', '--all')
    git(repository, 'commit', '--quiet', '--message=all')
    git(repository, 'gc', '--quiet')
    fs.appendFileSync(files[0] as string, 'changed\n')
    fs.writeFileSync(`${repository}/unknown`, '')
  },
}

const status: Step['prepare'] = ({ root, scale }) => {
  const repository = `${root}/repository`
  return () => {
    const said = git(repository, 'status', '--porcelain')
    expect(said, 'M area0/part0/file0\n?? unknown')
    return scaled(5000, scale)
  }
}

export const gitStatus: Workload = {
  name: 'git',
  lowers: REPOSITORY,
  programs: ['git'],
  steps: [
    step('status', 'git status of 5,000 lower files', status),
    step('again', 'git status again', status),
  ],
}
