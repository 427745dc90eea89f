import { join } from 'node:path';
import { expect, test } from 'vitest';
import { run } from '../support/command.ts';

/* What people try first, as they would: `npm run demo` and `npm run bench`. */

const root = join(import.meta.dirname, '../..');
const script = (name: string, ...args: string[]) =>
  run('npm', ['run', '--silent', name, '--', ...args], {
    cwd: root,
    timeoutMs: 540_000,
    env: { NO_COLOR: '1' },
  });

test('the demo runs a job that succeeds, one that fails and one that takes too long, and leaves nothing', async () => {
  const { code, stdout, stderr } = await script('demo');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toContain('nothing was left behind');
  const [, table = ''] = stdout.split('what happened\n');
  const rows = table.split('\n').map((line) => line.trim().split(/ {2,}/));
  expect(rows[0]).toEqual(['PHASE', 'EXIT', 'PROVISIONING', 'RUNNING', 'COLLECTING', 'IN ALL']);
  expect(rows.slice(1, 4).map(([, phase, exitCode]) => [phase, exitCode])).toEqual([
    ['Succeeded', '0'],
    ['Failed', '3'],
    ['Failed', '124'],
  ]);
  for (const row of rows.slice(1, 4))
    for (const took of row.slice(3)) expect(took).toMatch(/^\d+(\.\d+)? ?m?s$/);
}, 600_000);

test('the bench ends with one line of figures, of which the counts are the same on every machine', async () => {
  const { code, stdout, stderr } = await script('bench', '--rounds', '2', '--json');
  expect(code, stderr).toBe(0);
  const figures = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as Record<string, number>;
  const names = [
    'floorMs',
    'standaloneMs',
    'clusterMs',
    'ratioStandalone',
    'ratioCluster',
    'exitToTerminalMs',
    'apiWritesPerJob',
    'incusRequestsPerJob',
  ];
  expect(Object.keys(figures)).toEqual(names);
  for (const name of names) expect(figures[name], name).toBeGreaterThan(0);
  expect(figures['apiWritesPerJob']).toBeLessThanOrEqual(5);
  expect(stderr).not.toContain('left behind');
}, 600_000);
