import { spawnSync } from 'node:child_process'

import t from 'tap'

import { bundle } from '../../helpers/bundle.js'

const noTaskset = spawnSync('taskset', ['--version']).status !== 0 && 'needs taskset'

t.test('this engine knows what it is told', { skip: noTaskset }, async t => {
  // What it is told later lies ready for the union's thread.
  const program = `
    import { setFlagsFromString } from 'node:v8'
    import { getEnvironmentData } from 'node:worker_threads'
    import { tuneEngine } from '${bundle(t, 'cli/engine')}'
    tuneEngine()
    const settings = Object.values(getEnvironmentData('tsoverlay: compile'))
    if (settings.length !== 4) throw new Error('no settings')
    for (const words of settings) setFlagsFromString(words)`
  const node = ['-u', 'NODE_OPTIONS', process.execPath, '--input-type=module', '-e', program]
  const processor = /\d+/.exec(
    spawnSync('taskset', ['-cp', `${process.pid}`], { encoding: 'utf8' }).stdout.split(':')[1] ??
      '',
  )?.[0]
  for (const args of [['env'], ['taskset', '-c', processor ?? '0', 'env']]) {
    const [command = '', ...rest] = [...args, ...node]
    const { status, stdout, stderr } = spawnSync(command, rest, { encoding: 'utf8' })
    t.same({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
  }
})
