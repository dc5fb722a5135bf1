/** sqlite: small writes and syncs in two or three files of one database. */

import { scaled, step, type Step, type Workload } from '../work.js'
import { EMPTY } from '../layers.js'
import { expect, run } from './tools.js'

const ROW = 100

type Journal = 'delete' | 'wal'
const databaseOf = (root: string, journal: Journal, n: number): string =>
  `${root}/${journal}${n}.db`

const create =
  (journal: Journal): Step['prepare'] =>
  ({ root }, n) =>
  () => {
    const input = `PRAGMA journal_mode=${journal}; CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);`
    expect(run(['sqlite3', databaseOf(root, journal, n)], { input }), journal)
    return 1
  }

/** Transactions of one row each, in a new database. */
const transactions =
  (journal: Journal): Step['prepare'] =>
  ({ root, scale }, n) => {
    const count = scaled(500, scale)
    const database = databaseOf(root, journal, n)
    const insert = `BEGIN; INSERT INTO t (text) VALUES ('${'x'.repeat(ROW)}'); COMMIT;\n`
    const input = `${insert.repeat(count)}SELECT count(*) FROM t;\n`
    return () => {
      expect(run(['sqlite3', database], { input }), count)
      return count
    }
  }

export const sqlite: Workload = {
  name: 'sqlite',
  lowers: EMPTY,
  programs: ['sqlite3'],
  steps: [
    step('new-journal', '', create('delete')),
    step('journal', '500 transactions of sqlite, rollback journal', transactions('delete')),
    step('new-wal', '', create('wal')),
    step('wal', '500 transactions of sqlite, write-ahead log', transactions('wal')),
  ],
}
