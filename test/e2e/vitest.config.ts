import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

// eslint-disable-next-line import-x/no-default-export -- vitest takes its configuration so
export default defineConfig({
  test: {
    name: 'e2e',
    root: join(import.meta.dirname, '../..'),
    include: ['test/e2e/**/*.test.ts'],
    globalSetup: [join(import.meta.dirname, 'support/shared-incus.ts')],
    // Most of the time they wait, each on a control plane and a project of its own.
    maxWorkers: 3,
    testTimeout: 120_000,
    expect: { poll: { timeout: 10_000 } },
    hookTimeout: 120_000,
    teardownTimeout: 120_000,
  },
});
