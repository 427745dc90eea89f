import { creation } from './creation.ts';
import { execs } from './execs.ts';
import { files } from './files.ts';
import { lookups } from './lookups.ts';
import { power } from './power.ts';
import { interactive } from './interactive.ts';
import { restricted } from './restricted.ts';
import type { Scenario } from './scenario.ts';

/** What was observed on Incus 6.0.4, as checks that hold there and on the simulator alike. */
export const scenarios: readonly Scenario[] = [
  ...lookups,
  ...creation,
  ...power,
  ...execs,
  ...interactive,
  ...files,
  ...restricted,
];
