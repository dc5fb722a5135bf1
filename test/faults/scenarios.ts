/** Every operation of the union, in each situation that takes another code path. */

import type { Scenario } from './scenario.js'
import { attributes } from './scenarios/attributes.js'
import { create } from './scenarios/create.js'
import { data } from './scenarios/data.js'
import { forms } from './scenarios/forms.js'
import { life } from './scenarios/life.js'
import { lookup } from './scenarios/lookup.js'
import { metacopies } from './scenarios/metacopy.js'
import { remove } from './scenarios/remove.js'
import { rename } from './scenarios/rename.js'

export const scenarios: readonly Scenario[] = [
  ...lookup,
  ...create,
  ...remove,
  ...rename,
  ...attributes,
  ...metacopies,
  ...data,
  ...life,
  ...forms,
]
