import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { metricsReference } from './reference.ts';

/* `npm run crds`: writes docs/metrics.md. */

writeFileSync(join(import.meta.dirname, '../../docs/metrics.md'), metricsReference());
