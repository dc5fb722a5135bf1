// A unit test counts as coverage of the source file with its own path, and of no other.
export default test =>
  test.startsWith('test/unit/')
    ? test.replace(/^test\/unit\//, 'src/').replace(/\.test\.ts$/, '.ts')
    : null
