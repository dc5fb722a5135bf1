import t from 'tap'

import { asPrometheus, asText, readCounters } from '../../../../src/cli/commands/stats.js'

const of = { mountpoint: '/a "b"\n', pid: 7, io: 'cached', since: 1500 }
const counters = {
  requests: 5,
  errors: 1,
  parked: 2,
  nodes: 3,
  files: 4,
  jobs: 0,
  copyups: 6,
  'copyup.bytes': 2048,
  'op.LOOKUP': 4,
  'op.GETATTR': 1,
  'error.LOOKUP': 1,
  'io.nodes': 9,
}

t.test('counters by name', async t => {
  t.strictSame(readCounters(counters, of), {
    ...of,
    requests: 5,
    errors: 1,
    waiting: 2,
    nodes: 3,
    openFiles: 4,
    copyUps: 6,
    copyUpBytes: 2048,
    operations: { GETATTR: { requests: 1, errors: 0 }, LOOKUP: { requests: 4, errors: 1 } },
  })
  t.match(readCounters({ requests: 1, 'native.open': 1 }, of), {
    nodes: null,
    copyUps: null,
    operations: { open: { requests: 1, errors: null } },
  })
})

t.test('for people', async t => {
  t.strictSame(asText(readCounters(counters, of)), [
    String.raw`mountpoint  /a\040"b"\012`,
    'process     7',
    'data mode   cached',
    'requests    5',
    'errors      1',
    'waiting     2',
    'nodes       3',
    'open files  4',
    'copy-ups    6',
    'copied      2048 (2.0K)',
    '',
    'OPERATION  REQUESTS  ERRORS',
    'LOOKUP            4       1',
    'GETATTR           1       0',
  ])
})

t.test('for Prometheus', async t => {
  const lines = asPrometheus(readCounters(counters, of))
  const label = String.raw`mountpoint="/a \"b\"\n"`
  t.ok(lines.includes(`tsoverlay_requests_total{${label},operation="LOOKUP"} 4`))
  t.ok(lines.includes(`tsoverlay_operation_errors_total{${label},operation="LOOKUP"} 1`))
  t.ok(lines.includes(`tsoverlay_mount_time_seconds{${label}} 1.5`))
  t.ok(lines.includes('# TYPE tsoverlay_nodes gauge'))
  const names = lines.filter(line => line.startsWith('# TYPE')).map(line => line.split(' ')[2])
  t.equal(new Set(names).size, names.length)
  t.notMatch(asPrometheus(readCounters({ requests: 1, errors: 0 }, of)).join('\n'), 'copyups')
})
