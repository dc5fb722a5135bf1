import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

import t, { type Test } from 'tap'

import { Registration } from '../../../src/resident/registration.js'
import { pipeIn } from '../../helpers/resident.js'
import { Requests, type Answer, type Handler } from '../../../src/resident/requests.js'

const own: Answer = { kind: 'own', why: 'so' }

/** A server of requests in a directory of the test's own. */
const begin = (t: Test, take: Handler): Registration => {
  const top = `${t.testdir({})}/top`
  const registration = Registration.create(`${top}/key`)
  if (typeof registration === 'string') throw new Error(registration)
  const requests = new Requests(registration, take)
  t.teardown(() => {
    requests.end()
    registration.end()
  })
  return registration
}

/** A client that has asked, and what it does then. */
const ask = (t: Test, directory: string, before: string, after: string): ChildProcess => {
  const script = `${before}; exec 3<>"$2"; printf '\n%s\n' $$ >&3; ${after}`
  const child = spawn('sh', ['-c', script, 'sh', directory, pipeIn(directory)], { stdio: 'ignore' })
  t.teardown(() => void child.kill('SIGKILL'))
  return child
}

const outcomeOf = async (child: ChildProcess): Promise<string> =>
  String((await once(child, 'exit')).find(one => one !== null))

t.test('a client that has become another program is not ended by the answer', async t => {
  let answered = false
  const { directory } = begin(t, async () => {
    await pause(600)
    answered = true
    return own
  })
  const child = ask(t, directory, ':', 'sleep 0.1; exec sleep 1')
  t.equal(await outcomeOf(child), '0')
  t.ok(answered)
})

t.test('an answer is written into no file that a link leads to', async t => {
  const { directory } = begin(t, () => Promise.resolve(own))
  const other = `${directory}/other`
  fs.writeFileSync(other, 'precious')
  const child = ask(
    t,
    directory,
    'ln -s "$1/other" "$1/.fresh.$$"',
    'until [ -e "$1/answer.$$" ]; do sleep 0.02; done; read -r line <"$1/answer.$$"; [ "$line" = own ]',
  )
  t.equal(await outcomeOf(child), '0')
  t.equal(fs.readFileSync(other, 'utf8'), 'precious')
})

t.test('a directory in place of an answer', async t => {
  const { directory } = begin(t, () => Promise.resolve(own))
  const child = ask(t, directory, 'mkdir "$1/.fresh.$$" "$1/answer.$$"', 'sleep 0.2; kill -9 $$')
  t.equal(await outcomeOf(child), 'SIGKILL')
  fs.mkdirSync(`${directory}/answer.4194304`)
  fs.appendFileSync(pipeIn(directory), '\n4194304\n')
  await pause(300)
  t.pass('it does not end the server')
})
