import t from 'tap'

import { parseMountOptions } from '../../../src/config/options.js'
import {
  absolute,
  splitLowerdir,
  splitOptions,
  unescapeOption,
} from '../../../src/config/syntax.js'
import { MountError } from '../../../src/errors.js'
import { defaultTuning } from '../../../src/config/tuning.js'
import {
  MS_NOATIME,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_RELATIME,
  MS_STRICTATIME,
} from '../../../src/sys/constants.js'

const asRoot = (text: string) => parseMountOptions([text], '/', 0).allowOther
const parse = (...lists: string[]) => parseMountOptions(lists, '/home/me')

t.test('commas split, unless a backslash precedes them', async t => {
  const cases: [string, string[]][] = [
    ['', []],
    ['a', ['a']],
    ['a,b=c', ['a', 'b=c']],
    [',,a,,b,', ['a', 'b']],
    ['a\\,b,c', ['a\\,b', 'c']],
    ['a\\\\,b', ['a\\\\', 'b']],
    ['a\\:b,c', ['a\\:b', 'c']],
    ['a\\', ['a\\']],
  ]
  for (const [text, items] of cases) t.same(splitOptions(text), items, JSON.stringify(text))
})

t.test('a backslash is removed before any character', async t => {
  const cases: [string, string][] = [
    ['a\\:b', 'a:b'],
    ['a\\,b', 'a,b'],
    ['a\\\\b', 'a\\b'],
    ['a\\xb', 'axb'],
    ['a\\\nb', 'a\nb'],
    ['a\\', 'a'],
    ['\\\\\\:', '\\:'],
  ]
  for (const [text, plain] of cases) t.equal(unescapeOption(text), plain, JSON.stringify(text))
})

t.test('layers', async t => {
  t.same(splitLowerdir('/a'), ['/a'])
  t.same(splitLowerdir('/a:/b:c'), ['/a', '/b', 'c'])
  t.same(splitLowerdir('/a\\:b:/c\\\\d:/e\\,f'), ['/a:b', '/c\\d', '/e,f'])
  const many = Array.from({ length: 2000 }, (_, i) => `/layer/${i}`)
  t.same(splitLowerdir(many.join(':')), many, 'no limit on their number')
  t.throws(() => splitLowerdir(''), { name: 'MountError', option: 'lowerdir' })
  t.throws(() => splitLowerdir('/a:'), { message: /beginning or the end/, option: 'lowerdir' })
  t.throws(() => splitLowerdir(':/a'), { message: /beginning or the end/, option: 'lowerdir' })
  t.throws(() => splitLowerdir('/a::/b'), { message: /data-only/, option: 'lowerdir' })
  t.throws(() => splitLowerdir('/a:::/b'), { message: /data-only/, option: 'lowerdir' })
})

t.test('relative paths are relative to the current directory and not normalized', async t => {
  t.equal(absolute('a/../b', '/x'), '/x/a/../b')
  t.equal(absolute('/a/../b', '/x'), '/a/../b')
  t.equal(absolute('a', '/'), '/a')
  t.match(parse('lowerdir=l:/m,upperdir=u,workdir=../w').union, {
    lower: ['/home/me/l', '/m'],
    upper: '/home/me/u',
    work: '/home/me/../w',
  })
})

t.test('without options: the defaults', async t => {
  t.same(parse(), {
    union: {
      lower: [],
      redirectDir: 'off',
      whiteout: 'auto',
      index: true,
      userxattr: 'auto',
      volatile: false,
      fsync: true,
      readOnly: false,
      xattrPermissions: 0,
      shared: true,
    },
    io: 'auto',
    fsname: undefined,
    subtype: undefined,
    allowOther: undefined,
    mountFlags: 0,
    timeout: undefined,
    tuning: defaultTuning,
    logLevel: undefined,
    logFile: undefined,
    ownServer: false,
    ignored: [],
    labels: [],
    warnings: [],
  })
})

t.test('several lists are concatenated; the last value wins', async t => {
  const parsed = parse('lowerdir=/a,index=off', 'upperdir=/u,workdir=/w', 'index=on,lowerdir=/b')
  t.match(parsed.union, { lower: ['/b'], upper: '/u', work: '/w', index: true })
  t.same(parse('lowerdir+=/a:x', 'lowerdir+=/b').union.lower, ['/a:x', '/b'])
  t.not(parse('lowerdir+=/a').union.lower, parse().union.lower, 'no state is kept')
})

t.test('every option', async t => {
  for (const value of ['on', 'off', 'follow', 'nofollow'] as const) {
    t.equal(parse(`redirect_dir=${value}`).union.redirectDir, value)
  }
  for (const value of ['auto', 'char', 'xattr', 'wh'] as const) {
    t.equal(parse(`whiteout=${value}`).union.whiteout, value)
  }
  for (const value of ['auto', 'passthrough', 'cached'] as const) {
    t.equal(parse(`io=${value}`).io, value)
  }
  t.equal(parse('index=off').union.index, false)
  t.equal(parse('userxattr').union.userxattr, true)
  t.equal(parse('volatile').union.volatile, true)
  t.equal(parse('allow_other').allowOther, true)
  t.same(parse('default_permissions').ignored, [])
  t.equal(parse('fsname=my\\,name').fsname, 'my,name')
  t.equal(parse('subtype=mine').subtype, 'mine')
  t.equal(parse('log_level=debug').logLevel, 'debug')
  t.equal(parse('log_file=my\\,log').logFile, '/home/me/my,log')
  t.equal(parse('timeout=1.5').timeout, 1.5)
  t.equal(parse('timeout=0').timeout, 0)
  t.equal(parse('upperdir=/a\\:b,workdir=/w').union.upper, '/a:b')
  t.equal(parse('upperdir=/a:b,workdir=/w').union.upper, '/a:b', 'a colon there is no separator')
})

t.test('a wrong value is an error that names option and choices', async t => {
  const cases: [string, string, RegExp][] = [
    ['redirect_dir=maybe', 'redirect_dir', /choose one of on, off, follow, nofollow/],
    ['redirect_dir', 'redirect_dir', /choose one of/],
    ['index=1', 'index', /choose one of on, off/],
    ['whiteout=', 'whiteout', /choose one of auto, char, xattr, wh/],
    ['io=fast', 'io', /choose one of auto, passthrough, cached/],
    ['userxattr=on', 'userxattr', /takes no value/],
    ['volatile=1', 'volatile', /takes no value/],
    ['allow_other=1', 'allow_other', /takes no value/],
    ['default_permissions=1', 'default_permissions', /takes no value/],
    ['fsync=2', 'fsync', /choose one of 1, 0, auto, volatile/],
    ['fsync=strict', 'fsync', /choose one of/],
    ['fsync', 'fsync', /choose one of/],
    ['writeback=yes', 'writeback', /choose one of 0, 1/],
    ['threaded=yes', 'threaded', /choose one of 0, 1/],
    ['noxattrs', 'noxattrs', /choose one of 0, 1/],
    ['xino=2', 'xino', /choose one of off, auto, on/],
    ['noacl=1', 'noacl', /takes no value/],
    ['static_nlink=1', 'static_nlink', /takes no value/],
    ['allow_root=1', 'allow_root', /takes no value/],
    ['max_write=1M', 'max_write', /not a number of bytes/],
    ['max_write', 'max_write', /not a number of bytes/],
    ['timeout=soon', 'timeout', /not a number of seconds/],
    ['timeout=-1', 'timeout', /not a number of seconds/],
    ['timeout=', 'timeout', /not a number of seconds/],
    ['timeout', 'timeout', /not a number of seconds/],
    ['lowerdir', 'lowerdir', /value is missing/],
    ['lowerdir=', 'lowerdir', /value is missing/],
    ['lowerdir+=', 'lowerdir+', /value is missing/],
    ['datadir+=/a', 'datadir+', /data-only layers/],
    ['upperdir=', 'upperdir', /value is missing/],
    ['workdir', 'workdir', /value is missing/],
    ['log_level=loud', 'log_level', /choose one of trace, debug, info, warn, error/],
    ['log_file=', 'log_file', /value is missing/],
    ['fsname=', 'fsname', /value is missing/],
    ['subtype', 'subtype', /value is missing/],
  ]
  for (const [text, option, message] of cases) {
    try {
      parse(text)
      t.fail(`${text} was accepted`)
    } catch (error) {
      t.ok(error instanceof MountError)
      t.match(error, { option, message, code: 'EINVAL' }, text)
      t.match(error, { message: new RegExp(`^${option.replace('+', '\\+')}`) })
    }
  }
})

t.test('mount flags', async t => {
  t.equal(
    parse('ro,nosuid,nodev,noexec,noatime').mountFlags,
    MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME,
  )
  t.equal(parse('ro').union.readOnly, true)
  t.equal(parse('ro,rw').union.readOnly, false)
  t.equal(parse('ro,rw').mountFlags, 0)
  t.equal(parse('nosuid,suid,nodev,dev,noexec,exec,noatime,atime').mountFlags, 0)
  t.equal(parse('noatime,relatime').mountFlags, MS_RELATIME)
  t.equal(parse('relatime,strictatime').mountFlags, MS_STRICTATIME)
  t.equal(parse('strictatime,noatime').mountFlags, MS_NOATIME)
  for (const word of ['user', 'user=me', 'users']) {
    t.equal(parse(word).mountFlags, MS_NOSUID | MS_NODEV | MS_NOEXEC, 'as mount(8) takes it')
    t.equal(parse(`${word},exec,suid`).mountFlags, MS_NODEV, 'a later word takes it back')
  }
  for (const word of ['owner', 'group']) t.equal(parse(word).mountFlags, MS_NOSUID | MS_NODEV)
})

t.test('unknown options are returned as given', async t => {
  t.same(parse('metacopy=on,lowerdir=/a,foo,bar=b\\,az,ro=1').ignored, [
    'metacopy=on',
    'foo',
    'bar=b\\,az',
    'ro=1',
  ])
  t.same(parse('constructor,__proto__,toString=1').ignored, [
    'constructor',
    '__proto__',
    'toString=1',
  ])
  t.same(
    parse('defaults,auto,noauto,nofail,_netdev,user=me,x-systemd.automount,comment=mine').ignored,
    [],
    'words of fstab lines are for mount(8)',
  )
})

t.test('a workdir without upperdir is ignored with a warning', async t => {
  const parsed = parse('lowerdir=/a,workdir=/w')
  t.equal(parsed.union.work, undefined)
  t.match(parsed.warnings, [/^workdir=\/w is ignored/])
})

t.test('options of fuse-overlayfs with an effect', async t => {
  t.equal(parse('fsync=0').union.fsync, false)
  t.match(parse('fsync=0,fsync=1').union, { fsync: true, volatile: false })
  t.match(parse('fsync=auto').union, { fsync: true, volatile: false })
  t.equal(parse('fsync=volatile').union.volatile, true, 'as the kernel calls it')
  t.same(parse('writeback=0').tuning, { ...defaultTuning, writeback: false })
  t.same(parse('writeback=0,writeback=1').tuning, defaultTuning)
  t.same(parse('noopen').tuning, { ...defaultTuning, noOpen: true })
  t.same(parse('noxattrs=1').tuning, { ...defaultTuning, xattrs: false })
  t.same(parse('noxattrs=0').tuning, defaultTuning)
  t.same(parse('noacl').tuning, { ...defaultTuning, acl: false })
  t.same(parse('static_nlink').tuning, { ...defaultTuning, staticNlink: true })
  t.same(parse('max_write=65536').tuning, { ...defaultTuning, maxWrite: 65536 })
  t.equal(asRoot('allow_root'), false)
  t.equal(asRoot('allow_root,allow_other'), true)
  t.equal(asRoot('allow_other,allow_root'), false)
  t.throws(() => parseMountOptions(['allow_root'], '/', 5), {
    option: 'allow_root',
    message: /^allow_root: only root can/,
  })
})

t.test('options that are accepted without a message', async t => {
  const text =
    ',,threaded=0,threaded=1,xino=off,xino=auto,xino=on,kernel_cache,splice_read,no_splice_move,' +
    'rw,dev,suid,exec,async,nofail,noauto,_netdev,x-systemd.requires=a,xattr_permissions=0,fast_ino=0,plugins=,'
  const { ignored, warnings, ...rest } = parse(text)
  t.same([ignored, warnings], [[], []])
  const { ignored: _i, warnings: _w, ...plain } = parse()
  t.same(rest, plain, 'and change nothing')
})

t.test('labels, with commas between quotes', async t => {
  const cases: [string, string[]][] = [
    ['context="u:r:t:s0:c1,c2",a', ['context="u:r:t:s0:c1,c2"', 'a']],
    ['a,context="u:r:t:s0:c1,c2,c3"', ['a', 'context="u:r:t:s0:c1,c2,c3"']],
    ['context="u:r:t:s0",a="b,c"', ['context="u:r:t:s0"', 'a="b', 'c"']],
    ['x="y",context="u,v",z', ['x="y"', 'context="u,v"', 'z']],
    ['context="u,v', ['context="u', 'v']],
    ['context=",a', ['context="', 'a']],
    ['context=u:r,a', ['context=u:r', 'a']],
    ['upperdir="a,b"', ['upperdir="a', 'b"']],
  ]
  for (const [text, items] of cases) t.same(splitOptions(text), items, text)
  for (const name of ['context', 'fscontext', 'defcontext', 'rootcontext']) {
    const { ignored, warnings } = parse(`lowerdir=/a,${name}="system_u:object_r:f_t:s0:c1,c2"`)
    t.same([ignored, warnings], [[], []], name)
  }
})

t.test('options without effect cause a warning', async t => {
  for (const option of ['fast_ino=1', 'fast_ino_check=1', 'ino32_t', 'plugins=/a.so']) {
    const { ignored, warnings } = parse(option)
    t.same(ignored, [])
    t.match(warnings, [new RegExp(`^${option} has no effect: `)])
  }
})

const owners = (text: string) => parse(text).union.owners

t.test('owners of files', async t => {
  t.equal(owners('lowerdir=/a'), undefined)
  const range = { disk: 0, shown: 1000, length: 1 }
  const more = { disk: 1, shown: 100_000, length: 65536 }
  // containers/storage writes the second form.
  for (const text of ['0:1000:1:1:100000:65536', ':0:1000:1:1:100000:65536']) {
    t.strictSame(owners(`uidmapping=${text}`), { uids: [range, more] })
    t.strictSame(owners(`gidmapping=${text}`), { gids: [range, more] })
  }
  t.strictSame(owners('uidmapping=5:5:5,uidmapping=0:1000:1,gidmapping=0:1000:1'), {
    uids: [range],
    gids: [range],
  })
  t.strictSame(owners('squash_to_root'), { squashUid: 0, squashGid: 0 })
  t.strictSame(owners('squash_to_uid=7,squash_to_root'), { squashUid: 7, squashGid: 0 })
  t.strictSame(owners('squash_to_root,squash_to_gid=7'), { squashUid: 0, squashGid: 7 })
  t.strictSame(owners('squash_to_uid=0'), { squashUid: 0 })

  const cases: [string, RegExp][] = [
    ['uidmapping', /^uidmapping: the value is missing/],
    ['gidmapping=', /^gidmapping: the value is missing/],
    ['uidmapping=:', /^uidmapping=:: not triples of numbers; write DISK:SHOWN:LENGTH/],
    ['uidmapping=0:1', /not triples/],
    ['uidmapping=0:1:2:3', /not triples/],
    ['uidmapping=0::1:1', /not triples/],
    ['uidmapping=0:1:-2', /not triples/],
    ['uidmapping=0:1:0x2', /not triples/],
    ['gidmapping=0:1:0', /^gidmapping=0:1:0: 0:1:0 maps nothing/],
    ['gidmapping=0:4294967294:2', /goes beyond the last id, 4294967294/],
    ['gidmapping=0:99999999999:2', /0:99999999999:2 has something that is no id/],
    ['gidmapping=0:1:2:1:9:1', /0:1:2 and 1:9:1 overlap on disk/],
    ['gidmapping=0:1:2:9:2:1', /0:1:2 and 9:2:1 overlap as shown/],
    ['squash_to_root=1', /takes no value/],
    ['squash_to_uid', /the value is missing/],
    ['squash_to_uid=-1', /^squash_to_uid=-1: not an id; write a number from 0 to 4294967294/],
    ['squash_to_gid=4294967295', /not an id/],
  ]
  for (const [text, message] of cases)
    t.throws(() => parse(text), { option: text.split('=')[0], code: 'EINVAL', message })
})

t.test('xattr_permissions', async t => {
  t.equal(parse('lowerdir=/a').union.xattrPermissions, 0)
  for (const value of [0, 1, 2])
    t.equal(parse(`xattr_permissions=${value}`).union.xattrPermissions, value)
  for (const option of ['xattr_permissions=3', 'xattr_permissions=', 'xattr_permissions'])
    t.throws(() => parse(option), { option: 'xattr_permissions', code: 'EINVAL' })
})
