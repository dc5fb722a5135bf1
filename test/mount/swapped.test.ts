/**
 * An ordinary user owns a directory of a layer that contains files of root. The user may rename
 * these files, and so put root's file at a name where the union knows a file of the user. The
 * kernel still checks permissions with the cached attributes of the user's file. The union must not
 * read or change root's file in this way. A name that was replaced without bad intent must lead to
 * the new file.
 */

import * as fs from 'node:fs'
import t from 'tap'

import { directories, serve, skipMounts, test } from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { O } = sys
const skip = skipMounts || (isNative() && 'not with fuse-native')
const MODES = ['io=passthrough', 'io=cached', 'io=cached,writeback=0', 'io=cached,noopen'] as const
const LAYERS = ['lower', 'upper'] as const
const USER = { uid: 4242, gid: 4242, groups: [] }
const SECRET = 'secret'
const ATTRIBUTE = 'user.secret'
/** u::rw- g::--- o::--- with u:4242:rw- and the mask rw- */
const ACL = Buffer.from(
  '0200000001000600ffffffff02000600921000000400 0000ffffffff10000600ffffffff20000000ffffffff'.replace(
    ' ',
    '',
  ),
  'hex',
)

/** Reads from a descriptor and closes it. */
const drain = (fd: number): string => {
  if (fd < 0) return `open: ${fd}`
  const room = Buffer.alloc(100)
  const n = sys.read(fd, room)
  sys.close(fd)
  return n < 0 ? `read: ${n}` : room.latin1Slice(0, n)
}

const put = (fd: number): number => {
  const n = fd < 0 ? fd : sys.write(fd, Buffer.from('x'))
  if (fd >= 0) sys.close(fd)
  return n
}

const stateOf = (fd: number) => {
  const { mode, uid, gid, size, mtimeMs } = fs.fstatSync(fd)
  const value = sys.getxattr(fd, ATTRIBUTE)
  return { mode, uid, gid, size, mtimeMs, value, flags: sys.getFlags(fd) }
}

/** Replaces a file by rename, as editors do. */
const edit = (file: string, text: string): void => {
  fs.writeFileSync(`${file}~`, text, { mode: 0o640 })
  fs.renameSync(`${file}~`, file)
}

/**
 * The user's calls on the file: `file` is its path in the mount, `swap` replaces it. The result is
 * the data that the user sees.
 */
const ATTEMPTS: Record<string, (file: string, swap: () => void) => unknown> = {
  read: (file, swap) => {
    swap()
    return drain(sys.open(file, O.RDONLY))
  },
  'read, opened before': (file, swap) => {
    const fd = sys.open(file, O.RDONLY)
    swap()
    return drain(fd)
  },
  'read, by a descriptor of the inode': (file, swap) => {
    const fd = sys.open(file, O.PATH)
    swap()
    const content = drain(sys.open(`/proc/self/fd/${fd}`, O.RDONLY))
    sys.close(fd)
    return content
  },
  write: (file, swap) => {
    swap()
    return put(sys.open(file, O.WRONLY))
  },
  'write, by a descriptor of the inode': (file, swap) => {
    const fd = sys.open(file, O.PATH)
    swap()
    const result = put(sys.open(`/proc/self/fd/${fd}`, O.RDWR))
    sys.close(fd)
    return result
  },
  empty: (file, swap) => {
    swap()
    return put(sys.open(file, O.WRONLY | O.TRUNC))
  },
  'empty, by a descriptor of the inode': (file, swap) => {
    const fd = sys.open(file, O.PATH)
    swap()
    for (const mode of [O.RDONLY, O.WRONLY])
      sys.close(sys.open(`/proc/self/fd/${fd}`, mode | O.TRUNC))
    return sys.close(fd)
  },
  truncate: (file, swap) => {
    swap()
    return [sys.truncate(file, 0), sys.truncate(file, 100)]
  },
  'the mode': (file, swap) => {
    swap()
    return sys.fchmodat(sys.AT_FDCWD, file, 0o666)
  },
  'the mode, by a descriptor': (file, swap) => {
    const fd = sys.open(file, O.RDONLY)
    swap()
    const result = sys.fchmod(fd, 0o666)
    sys.close(fd)
    return result
  },
  'the group': (file, swap) => {
    swap()
    return sys.fchownat(sys.AT_FDCWD, file, -1, USER.gid, 0)
  },
  times: (file, swap) => {
    swap()
    return sys.utimensat(sys.AT_FDCWD, file, { sec: 1, nsec: 0 }, { sec: 1, nsec: 0 }, 0)
  },
  'set an attribute': (file, swap) => {
    swap()
    return sys.setxattr({ path: file, follow: true }, ATTRIBUTE, Buffer.from('x'), 0)
  },
  'set an ACL': (file, swap) => {
    swap()
    return sys.setxattr({ path: file, follow: true }, 'system.posix_acl_access', ACL, 0)
  },
  'remove an attribute': (file, swap) => {
    swap()
    return sys.removexattr({ path: file, follow: true }, ATTRIBUTE)
  },
  'read an attribute': (file, swap) => {
    swap()
    const value = sys.getxattr({ path: file, follow: true }, ATTRIBUTE)
    return typeof value === 'number' ? value : value.latin1Slice()
  },
  'set flags': (file, swap) => {
    const fd = sys.open(file, O.RDONLY)
    swap()
    const result = sys.setFlags(fd, 0x40)
    sys.close(fd)
    return result
  },
  'read, having had it copied up': (file, swap) => {
    sys.fchmodat(sys.AT_FDCWD, file, 0o666)
    swap()
    return drain(sys.open(file, O.RDONLY))
  },
  'a further name': (file, swap) => {
    swap()
    sys.linkat(sys.AT_FDCWD, file, sys.AT_FDCWD, `${file}.link`, 0)
    return drain(sys.open(`${file}.link`, O.RDWR))
  },
  'make a file where there was none': (file, swap) => {
    fs.unlinkSync(file)
    sys.lstat(sys.AT_FDCWD, file)
    swap()
    return drain(sys.open(file, O.CREAT | O.RDWR))
  },
  'empty a file where there was none': (file, swap) => {
    fs.unlinkSync(file)
    sys.lstat(sys.AT_FDCWD, file)
    swap()
    return put(sys.open(file, O.CREAT | O.WRONLY | O.TRUNC))
  },
}

/** Calls that remove a name, with the other name that they may use. */
const TAKEN: Record<string, (name: string, other: string) => void> = {
  unlink: name => fs.unlinkSync(name),
  rename: (name, other) => fs.renameSync(name, other),
  rmdir: name => fs.rmdirSync(name),
  'rename of a directory': (name, other) => fs.renameSync(name, other),
}

for (const mode of MODES) {
  for (const layer of LAYERS) {
    test(
      t,
      `no file of root is reached through the name of another file, ${layer}, ${mode}`,
      { skip },
      async t => {
        const f = directories(t, 'swapped')
        fs.chmodSync(f.top, 0o755)
        const beneath = `${f[layer]}/home`
        fs.mkdirSync(beneath)
        fs.chownSync(beneath, USER.uid, USER.gid)
        const names = Object.keys(ATTEMPTS)
        names.forEach((_, at) => {
          fs.writeFileSync(`${beneath}/${at}`, 'own')
          fs.chownSync(`${beneath}/${at}`, USER.uid, USER.gid)
          fs.writeFileSync(`${beneath}/secret${at}`, SECRET, { mode: 0o600 })
          sys.setxattr(
            { path: `${beneath}/secret${at}`, follow: true },
            ATTRIBUTE,
            Buffer.from(SECRET),
            0,
          )
        })
        const secrets = names.map((_, at) => sys.open(`${beneath}/secret${at}`, O.RDONLY))
        const before = secrets.map(stateOf)
        await serve(t, f, '-o', mode)
        names.forEach((name, at) => {
          const file = `${f.merged}/home/${at}`
          const seen = sys.withCredentials(USER, () => {
            sys.lstat(sys.AT_FDCWD, file)
            return ATTEMPTS[name]!(file, () => {
              // If the file was copied up in the meantime, the copy is replaced.
              const copied = `${f.upper}/home/${at}`
              const to = fs.existsSync(copied) ? copied : `${beneath}/${at}`
              fs.renameSync(`${beneath}/secret${at}`, to)
            })
          })
          t.notMatch(String(seen), SECRET, name)
          const fd = secrets[at]!
          t.same(stateOf(fd), before[at], `${name}: ${String(seen)}`)
          t.equal(drain(fd), SECRET, name)
          const copy = `${f.upper}/home/${at}`
          if (layer === 'lower' && fs.existsSync(copy) && fs.statSync(copy).uid !== 0)
            t.not(fs.readFileSync(copy, 'latin1'), SECRET, name)
        })
      },
    )
  }

  test(
    t,
    `the sticky bit is checked for the present file of a name, ${mode}`,
    { skip },
    async t => {
      const f = directories(t, 'sticky')
      fs.chmodSync(f.top, 0o755)
      const shared = `${f.upper}/shared`
      fs.mkdirSync(shared)
      fs.chmodSync(shared, 0o1777)
      fs.mkdirSync(`${f.upper}/own`)
      fs.chownSync(`${f.upper}/own`, USER.uid, USER.gid)
      const names = Object.keys(TAKEN)
      const make = (name: string): void => {
        if (/directory|rmdir/.test(name)) fs.mkdirSync(`${shared}/${name}`)
        else fs.writeFileSync(`${shared}/${name}`, SECRET, { mode: 0o600 })
      }
      for (const name of names) {
        make(name)
        fs.chownSync(`${shared}/${name}`, USER.uid, USER.gid)
      }
      await serve(t, f, '-o', mode)
      for (const name of names) {
        fs.lstatSync(`${f.merged}/shared/${name}`)
        // The old file is kept, so that its inode number is not reused.
        fs.renameSync(`${shared}/${name}`, `${f.top}/${name}`)
        make(name)
      }
      // Listing the directory makes the union notice the new files.
      fs.readdirSync(`${f.merged}/shared`)
      sys.withCredentials(USER, () => {
        for (const name of names)
          t.throws(
            () => TAKEN[name]!(`${f.merged}/shared/${name}`, `${f.merged}/own/${name}`),
            /EPERM|system error -116/,
            name,
          )
      })
      for (const name of names) t.equal(fs.lstatSync(`${shared}/${name}`).uid, 0, name)
    },
  )

  test(
    t,
    `attributes of another file give no access to a file of root, ${mode}`,
    { skip },
    async t => {
      const f = directories(t, 'swapped')
      fs.chmodSync(f.top, 0o755)
      const home = `${f.upper}/home`
      fs.mkdirSync(home)
      fs.chownSync(home, USER.uid, USER.gid)
      for (const [name, content, bits] of [
        ['secret', SECRET, 0o660],
        ['own', 'own', 0o666],
      ] as const) {
        fs.writeFileSync(`${home}/${name}`, content)
        fs.chmodSync(`${home}/${name}`, bits)
      }
      fs.chownSync(`${home}/own`, USER.uid, USER.gid)
      sys.setxattr({ path: `${home}/own`, follow: true }, 'system.posix_acl_access', ACL, 0)
      await serve(t, f, '-o', `${mode},timeout=1`)
      const swap = (): void => {
        sys.renameat2(
          sys.AT_FDCWD,
          `${home}/secret`,
          sys.AT_FDCWD,
          `${home}/own`,
          sys.RENAME.EXCHANGE,
        )
      }
      const seen = sys.withCredentials(USER, () => {
        const fd = sys.open(`${f.merged}/home/secret`, O.PATH)
        // The kernel revalidates the attributes.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1100)
        swap()
        const told = [
          sys.fstat(fd),
          sys.getxattr({ path: `/proc/self/fd/${fd}`, follow: true }, 'system.posix_acl_access'),
        ]
        swap()
        const content = drain(sys.open(`/proc/self/fd/${fd}`, O.RDONLY))
        sys.close(fd)
        return [...told.map(each => (typeof each === 'number' ? each : 'told')), content].join(' ')
      })
      t.notMatch(seen, SECRET)
    },
  )

  test(t, `a name that was replaced in the layer, ${mode}`, { skip }, async t => {
    const f = directories(t, 'swapped')
    const uses: Record<string, (file: string) => unknown> = {
      read: file => fs.readFileSync(file, 'latin1'),
      append: file => fs.appendFileSync(file, '!'),
      empty: file => fs.writeFileSync(file, '!'),
      truncate: file => fs.truncateSync(file, 1),
      chmod: file => fs.chmodSync(file, 0o600),
      utimes: file => fs.utimesSync(file, 1, 1),
      setxattr: file => sys.setxattr({ path: file, follow: true }, 'user.x', Buffer.from('y'), 0),
      link: file => fs.linkSync(file, `${file}.link`),
      rename: file => (fs.renameSync(file, `${file}.new`), fs.renameSync(`${file}.new`, file)),
    }
    for (const layer of LAYERS)
      for (const use of Object.keys(uses)) fs.writeFileSync(`${f[layer]}/${layer} ${use}`, 'before')
    for (const layer of LAYERS) fs.writeFileSync(`${f[layer]}/${layer} open`, 'before')
    // Without OPEN requests the kernel must revalidate the name.
    const server = await serve(t, f, '-o', mode.includes('noopen') ? `${mode},timeout=0` : mode)
    for (const layer of LAYERS) {
      for (const [use, run] of Object.entries(uses)) {
        const file = `${f.merged}/${layer} ${use}`
        fs.statSync(file)
        edit(`${f[layer]}/${layer} ${use}`, 'after')
        run(file)
        const due =
          use === 'append' ? 'after!' : use === 'empty' ? '!' : use === 'truncate' ? 'a' : 'after'
        t.equal(fs.readFileSync(file, 'latin1'), due, `${layer}, ${use}`)
        t.equal(fs.statSync(file).mode & 0o777, use === 'chmod' ? 0o600 : 0o640, `${layer}, ${use}`)
      }
      const file = `${f.merged}/${layer} open`
      const fd = sys.open(file, O.RDONLY)
      const room = Buffer.alloc(100)
      t.equal(sys.pread(fd, room, 0), 6)
      edit(`${f[layer]}/${layer} open`, 'afterwards')
      t.equal(fs.readFileSync(file, 'latin1'), 'afterwards')
      t.equal(sys.pread(fd, room, 0), 6, 'an open descriptor keeps the old file')
      t.equal(room.latin1Slice(0, 6), 'before')
      t.equal((sys.fstat(fd) as sys.Stat).size, 6)
      sys.close(fd)
    }
    await server.unmount()
  })
}
