/** A mount of the library, as its caller sees it. */

/** A live mount. */
export interface Mount extends AsyncDisposable {
  /** The mountpoint: absolute, without symlinks. */
  readonly mountpoint: string
  /** The io mode in use. */
  readonly io: 'passthrough' | 'cached'
  /**
   * Resolves when the mount has ended for any reason and every layer is closed. Rejects if the
   * server died of an error.
   */
  readonly closed: Promise<void>
  /**
   * Unmounts and, unless `lazy`, waits for the server's end. Does nothing if the mount has ended
   * already.
   * @param options `lazy`: detach the mount from the tree at once. Open files remain usable, and
   *   `closed` resolves after the last of them was closed
   * @throws {MountError} `EBUSY`: a process has a file open or uses a directory as its current
   *   directory (without `lazy`)
   */
  unmount(options?: { lazy?: boolean }): Promise<void>
  /** Counters of the server: nodes, handles, requests. Their names may change. */
  stats(): Promise<Record<string, number>>
  /**
   * For `await using`: unmounts, lazily if the mount is busy. Does not wait for files that remain
   * open.
   */
  [Symbol.asyncDispose](): Promise<void>
}
