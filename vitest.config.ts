import { defineConfig } from 'vitest/config';

/** A machine that is busy may take long; what is waited for decides, not how long it takes. */
const patient = { testTimeout: 30_000, expect: { poll: { timeout: 10_000 } } };

export default defineConfig({
  test: {
    // Most of these tests wait for a clock or a socket: more of them than cores may do so at once.
    maxWorkers: 4,
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], ...patient } },
      { test: { name: 'component', include: ['test/component/**/*.test.ts'], ...patient } },
    ],
  },
});
