import tseslint from 'typescript-eslint';
import importX from 'eslint-plugin-import-x';

/**
 * What each room of controller/ may import: the direction of the architecture, as docs/architecture.md draws it.
 * A room not named here imports nothing of ours. Only controller/main.ts and controller/cli/ see every room.
 */
const mayImport = {
  api: [],
  incus: [],
  ssh: [],
  telemetry: [],
  logs: [],
  reconcile: ['api', 'incus'],
  hosts: ['api', 'incus', 'ssh'],
  kube: ['api', 'reconcile'],
  standalone: ['api', 'reconcile'],
};
const rooms = Object.keys(mayImport);
const zones = rooms.flatMap((room) =>
  [...rooms, 'main.ts', 'cli', '../test']
    .filter((other) => other !== room && !mayImport[room].includes(other))
    .map((other) => ({
      target: `./controller/${room}`,
      from: `./controller/${other}`,
      message: `controller/${room} may import only ${mayImport[room].join(', ') || 'nothing of ours'}.`,
    })),
);

export default tseslint.config(
  { ignores: ['node_modules/', 'deploy/', 'nix/'] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['*.js'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    plugins: { 'import-x': importX },
    rules: {
      'import-x/no-restricted-paths': ['error', { zones }],
      'import-x/no-default-export': 'error',
      'import-x/no-cycle': 'error',
      eqeqeq: 'error',
      // Numbers in messages are fine; objects are not.
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      // Time is passed in as a Clock, so that every decision can be tested at any hour.
      'no-restricted-properties': [
        'error',
        { object: 'Date', property: 'now', message: 'Take a Clock instead.' },
      ],
    },
  },
  {
    // Tests, tools and the shell around the core may read the real clock.
    files: ['test/**', '*.config.*', 'controller/main.ts', 'controller/cli/**'],
    rules: {
      'no-restricted-properties': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
  { files: ['*.config.*'], rules: { 'import-x/no-default-export': 'off' } },
  { files: ['*.js'], extends: [tseslint.configs.disableTypeChecked] },
);
