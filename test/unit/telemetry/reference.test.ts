import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { metricsReference } from '../../../controller/telemetry/reference.ts';

test('docs/metrics.md says what the registry holds: run `npm run crds`', () => {
  const file = join(import.meta.dirname, '../../../docs/metrics.md');
  expect(readFileSync(file, 'utf8')).toBe(metricsReference());
});
