import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeTempDir } from '../support/temp-dir.ts';
import type { Report } from './chaos-report.ts';

/**
 * `npm run e2e:chaos`: the long form of chaos.test.ts, prepared, run and cleared away as `npm run e2e` does it. Its last
 * lines are the table of docs/reliability.md, whatever was wrong, and the figures as one line of JSON.
 */
const dir = await makeTempDir('chaos');
const reportFile = join(dir, 'report.json');
const main = join(import.meta.dirname, 'main.ts');
const child = spawn(process.execPath, [main, 'test/e2e/chaos.test.ts'], {
  stdio: 'inherit',
  env: { ...process.env, CHAOS_REPORT: reportFile },
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
const [code] = (await once(child, 'exit')) as [number | null];
try {
  const { figures, table, complaints } = JSON.parse(await readFile(reportFile, 'utf8')) as Report;
  console.log([table, ...complaints, JSON.stringify(figures)].join('\n'));
  process.exitCode = code ?? 1;
} catch {
  console.error('e2e:chaos: there is no report: the storm did not come to its end');
  process.exitCode = code === 0 ? 1 : (code ?? 1);
} finally {
  await rm(dir, { recursive: true, force: true });
}
