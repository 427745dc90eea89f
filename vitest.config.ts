import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // Most of these tests wait for a clock or a socket: more of them than cores may do so at once.
    maxWorkers: 4,
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 30_000 } },
      { test: { name: 'component', include: ['test/component/**/*.test.ts'], testTimeout: 30_000 } },
    ],
  },
});
