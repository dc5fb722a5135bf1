import t from 'tap'

import { Epoll, EPOLLIN } from '../../../src/sys/epoll.js'
import { E } from '../../../src/sys/errno.js'
import { close, eventfd, eventfdDrain, eventfdSignal } from '../../../src/sys/io.js'

t.test('it returns the numbers of ready descriptors', async t => {
  const epoll = new Epoll()
  const fds = Array.from({ length: 100 }, () => eventfd())
  t.teardown(() => {
    for (const fd of fds) close(fd)
    epoll.close()
  })
  const big = 0xffff_ff00
  fds.forEach((fd, i) => t.equal(epoll.add(fd, big + i), 0))
  t.equal(epoll.wait(0), 0)
  const start = performance.now()
  t.equal(epoll.wait(20), 0)
  t.ok(performance.now() - start >= 19)
  eventfdSignal(fds[3]!)
  eventfdSignal(fds[70]!)
  t.equal(epoll.wait(-1), 2)
  t.same(new Set([epoll.number(0), epoll.number(1)]), new Set([big + 3, big + 70]))
  t.equal(epoll.wait(-1), 2, 'until they are read')
  eventfdDrain(fds[3]!)
  t.equal(epoll.wait(-1), 1)
  t.equal(epoll.number(0), big + 70)
  t.equal(epoll.change(fds[70]!, big + 70, 0), 0)
  t.equal(epoll.wait(0), 0, 'not for now')
  t.equal(epoll.change(fds[70]!, 5, EPOLLIN), 0)
  t.equal(epoll.wait(0), 1)
  t.equal(epoll.number(0), 5)
  t.equal(epoll.remove(fds[70]!), 0)
  t.equal(epoll.wait(0), 0)
  for (const fd of fds) eventfdSignal(fd)
  t.equal(epoll.wait(0), 64, 'the rest comes with the next call')
})

t.test('errors are results', async t => {
  const epoll = new Epoll()
  t.equal(epoll.add(1_000_000, 1), -E.EBADF)
  t.equal(epoll.remove(1_000_000), -E.EBADF)
  epoll.close()
  t.equal(epoll.wait(0), -E.EBADF)
})
