/** sqlite: small writes and syncs in two or three files that belong together. */

import { scaled, step, type Step, type Workload } from '../workload.js'
import { EMPTY } from '../layers.js'
import { expect, run } from './tools.js'

const ROW = 100

/** Transactions of one row each, in a new database. */
const transactions =
  (journal: 'delete' | 'wal'): Step['prepare'] =>
  ({ root, scale }) => {
    const count = scaled(500, scale)
    const database = `${root}/${journal}.db`
    const setup = `PRAGMA journal_mode=${journal}; CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);`
    expect(run(['sqlite3', database], { input: setup }), journal)
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
    step('journal', 'sqlite transactions with a rollback journal', transactions('delete')),
    step('wal', 'sqlite transactions with a write-ahead log', transactions('wal')),
  ],
}
