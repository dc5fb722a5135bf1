/** A compilation: many short-lived processes that look for headers and write objects. */

import * as fs from 'node:fs'
import { RUNS, scaled, step, type LowerLayers, type Step, type Workload } from '../work.js'
import { expect, run as runProgram } from './tools.js'

const HEADERS = 40
const units = (scale: number): number[] => [...Array(scaled(60, scale)).keys()]

/** The directory of the objects of each run. */
const builds = Array.from({ length: RUNS }, (_, run) => `build${run}`)

const MAKEFILE = `objects := $(patsubst src/%.c,$(build)/%.o,$(wildcard src/*.c))
$(build)/program: $(objects)
	cc -o $@ $^
$(build)/%.o: src/%.c
	cc -Iempty -Iinclude -O0 -MMD -c -o $@ $<
`

/** 60 C files that each include 40 headers of their own. */
const PROJECT: LowerLayers = {
  name: 'c-project',
  count: 1,
  build(directory, scale) {
    const top = `${directory}/0/project`
    for (const name of ['src', 'empty', 'include', ...builds])
      fs.mkdirSync(`${top}/${name}`, { recursive: true })
    fs.writeFileSync(`${top}/Makefile`, MAKEFILE)
    let includes = ''
    for (let n = 0; n < HEADERS; n++) {
      fs.writeFileSync(
        `${top}/include/part${n}.h`,
        `#pragma once\nstatic inline int part${n}(int x) { return x + ${n}; }\n`,
      )
      includes += `#include "part${n}.h"\n`
    }
    for (const n of units(scale))
      fs.writeFileSync(
        `${top}/src/unit${n}.c`,
        `${includes}int unit${n}(void) { return part1(0); }\n`,
      )
    const declarations = units(scale).map(n => `int unit${n}(void);\n`)
    const calls = units(scale).map(n => ` + unit${n}()`)
    fs.writeFileSync(
      `${top}/src/main.c`,
      `#include <stdio.h>\n${declarations.join('')}int main(void) { printf("%d\\n", 0${calls.join('')}); }\n`,
    )
  },
}

const make = (project: string, run: number): string =>
  runProgram(['make', '--silent', '-j2', '-C', project, `build=${builds[run]}`])

const compile: Step['prepare'] = ({ root, scale }, run) => {
  const project = `${root}/project`
  const count = units(scale).length
  return () => {
    make(project, run)
    expect(runProgram([`${project}/${builds[run]}/program`]), count)
    return count + 1
  }
}

/** Everything is up to date, so make only compares times. */
const again: Step['prepare'] = ({ root, scale }, run) => {
  return () => {
    expect(make(`${root}/project`, run), '')
    return units(scale).length + 1
  }
}

export const compilation: Workload = {
  name: 'make',
  lowers: PROJECT,
  programs: ['make', 'cc'],
  steps: [
    step('all', 'make -j2 of 60 C files', compile),
    step('nothing', 'make -j2 again, when nothing is to be done', again),
  ],
}
