import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { controlPlaneBinaries } from '../support/control-plane-binaries.ts';
import { ensurePackages } from '../support/debian-packages.ts';
import { buildGuestImage, guestImagePackages } from '../support/guest-image.ts';
import { incusPackages, quotaPackages } from '../support/incusd.ts';
import { prometheusPackages } from '../support/prometheus.ts';
import { networkPackages } from '../support/network-namespace.ts';
import { sshPackages } from '../support/sshd.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { clearLeftovers, findLeftovers } from './support/leftovers.ts';

/**
 * `npm run e2e [-- vitest's arguments]`: brings the machine to where the end-to-end tests can run, runs them, and fails
 * when anything of them is left on the machine afterwards.
 */
const started = performance.now();
const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const say = (line: string) => console.log(`e2e: ${line}`);

async function prepare(): Promise<void> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    throw new Error(
      'the end-to-end tests start a real Incus, sshd and Kubernetes API: run them as root on Debian 12 or newer, ' +
        'best on a throw-away machine. `npm test` needs neither.',
    );
  }
  const packages = [
    ...incusPackages,
    ...quotaPackages,
    ...sshPackages,
    ...networkPackages,
    ...prometheusPackages,
    ...guestImagePackages,
    'openssl',
    // Whose completion is tested.
    ...['bash', 'zsh', 'fish'],
  ];
  await ensurePackages(packages, { reason: 'to run the end-to-end tests', onProgress: say });
  await controlPlaneBinaries({ onProgress: say });
  for (const kind of ['busybox', 'systemd'] as const) await buildGuestImage(kind, { onProgress: say });
  say(`the machine is ready (${seconds(started)})`);
}

/** Runs vitest with everything it makes below one directory. Resolves to its exit code, or 130 after Ctrl-C. */
async function runTests(runDir: string): Promise<number> {
  const repository = join(import.meta.dirname, '../..');
  const vitest = join(repository, 'node_modules/vitest/vitest.mjs');
  const args = ['run', '--config', join(import.meta.dirname, 'vitest.config.ts'), ...process.argv.slice(2)];
  const child = spawn(process.execPath, [vitest, ...args], {
    cwd: repository,
    stdio: 'inherit',
    // npm and others would keep what they compiled below TMPDIR, for runs that never come.
    env: { ...process.env, TMPDIR: runDir, NODE_DISABLE_COMPILE_CACHE: '1' },
  });
  const state = { interrupted: false };
  // A terminal's Ctrl-C reaches vitest too, which ends; a signal to this process alone is handed on. Then we clear up.
  const onSignal = (signal: NodeJS.Signals) => {
    if (state.interrupted) child.kill('SIGKILL');
    else if (signal === 'SIGTERM') child.kill(signal);
    state.interrupted = true;
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exitCode) => resolve(exitCode ?? 1));
  });
  return state.interrupted ? 130 : code;
}

async function main(): Promise<number> {
  await prepare();
  const runDir = await makeTempDir('e2e');
  const testsStarted = performance.now();
  let code: number;
  let leftovers: string[] = [];
  try {
    code = await runTests(runDir);
    leftovers = await findLeftovers(runDir);
  } finally {
    await clearLeftovers(runDir);
  }
  say(`tests ${seconds(testsStarted)}, with preparation ${seconds(started)}`);
  if (code === 130) {
    say('interrupted; everything it had started is gone');
    return code;
  }
  if (leftovers.length === 0) {
    say('nothing was left behind');
    return code;
  }
  say(
    `FAILED: the tests left behind (cleared away now):\n${leftovers.map((what) => `  - ${what}`).join('\n')}`,
  );
  return code === 0 ? 1 : code;
}

try {
  process.exitCode = await main();
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
