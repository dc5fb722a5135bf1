/** The layers of all scenarios. */

import {
  acl,
  dir,
  fifo,
  file,
  link,
  opaque,
  socket,
  symlink,
  device,
  whiteout,
  type Layer,
} from '../helpers/layers.js'
import type { Mode } from './modes.js'
import { CAPABILITY, usesUserXattrs, NOTES } from './scenario.js'

export interface Layers {
  lower: Layer[]
  upper: Layer
}

export const layersFor = (mode: Mode): Layers => {
  const users = usesUserXattrs(mode)
  const prefix = users ? 'user' : 'trusted'
  const own = users ? {} : { uid: 1, gid: 2 }
  const lower = {
    f: file('lower f', { mode: 0o4755, ...own, xattrs: { [NOTES]: 'f' } }),
    'f.cap': file('capable', users ? {} : { xattrs: { 'security.capability': CAPABILITY } }),
    'f.ro': file('read-only', { mode: 0o444 }),
    sparse: file('', { pieces: [[65_536, 'x']], size: 70_000 }),
    h1: file('linked', { xattrs: { [NOTES]: 'h' } }),
    'd/h2': link('h1'),
    'd/h3': link('h1'),
    hs1: file('linked too'),
    hs2: link('hs1'),
    'd/': dir({ mode: 0o755, ...own, xattrs: { [NOTES]: 'd' } }),
    'd/x': 'x',
    'd/sub/y': 'y',
    s: symlink('target'),
    p: fifo({ mode: 0o640 }),
    k: socket(),
    ...(users ? {} : { dev: device('char', 1, 3) }),
    'm/a': 'lower a',
    'm/w': 'hidden',
    'm/v': 'hidden',
    'e/1': '1',
    'e/2': '2',
    'ro/': dir({ mode: 0o555 }),
    'ro/g': 'g',
    gone: 'gone',
    mc: 'metadata only above',
    'acl/': dir(
      users
        ? {}
        : { xattrs: { 'system.posix_acl_default': acl('u::rwx,u:5:rwx,g::r-x,m::rwx,o::r-x') } },
    ),
    'acl/gone': 'gone',
    'sgid/': dir({ mode: 0o2775, ...(users ? {} : { gid: 7 }) }),
    'sgid/gone': 'gone',
  }
  const upper = {
    uf: file('upper f', { mode: 0o644, xattrs: { [NOTES]: 'u' } }),
    uf2: file('second', { mode: 0o600 }),
    ul1: 'upper links',
    ul2: link('ul1'),
    'ud/a': 'a',
    'ue/': dir(),
    'm/b': 'b',
    'm/w': whiteout,
    'm/v': whiteout,
    'e/1': whiteout,
    'e/2': whiteout,
    'o/': opaque(prefix),
    'o/f': 'f',
    'uro/': dir({ mode: 0o555 }),
    'uro/sub/z': 'z',
    gone: whiteout,
    ...(users
      ? {}
      : { mc: file('', { size: 19, mode: 0o600, xattrs: { 'trusted.overlay.metacopy': '' } }) }),
    'acl/gone': whiteout,
    'sgid/gone': whiteout,
  }
  return { lower: [lower, { 'd/deep': 'deep', 'm/c': 'c', only: 'only', f: 'covered' }], upper }
}
