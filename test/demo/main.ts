import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs, styleText } from 'node:util';
import { clearLeftovers, findLeftovers } from '../e2e/support/leftovers.ts';
import type { GuestKind } from '../support/guest-image.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { cijobRun, type RunResult } from './cijob-run.ts';
import { examples, type Example } from './example.ts';
import { prepareMachine } from './machine.ts';
import { table } from './table.ts';

const help = `npm run demo [-- --guest busybox|systemd] [-- --verbose]

Runs three CiJobs on a real Incus on this machine, without a cluster, and leaves nothing behind but the Debian packages
it had to install and the guest image it keeps in the cache directory for the next time. Run it as root on Debian 12 or
newer; it starts an Incus server of its own and does not touch one that is there already.

  --guest KIND   what the jobs run in: busybox (default; a few megabytes), or systemd (a small Debian, built in a minute)
  --verbose      show each Incus command
  --help         show this
`;

interface Options {
  guest: GuestKind;
  verbose: boolean;
}

const say = (line = '') => console.log(line);
const bold = (text: string) => styleText('bold', text);
const dim = (text: string) => styleText('dim', text);
const seconds = (milliseconds: number) => `${(milliseconds / 1000).toFixed(1)} s`;
const interrupted = new AbortController();

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      guest: { type: 'string', default: 'busybox' },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const { guest, verbose } = values;
  if (values.help) return undefined;
  if (guest !== 'busybox' && guest !== 'systemd') {
    throw new Error(`--guest must be busybox or systemd, not ${guest}`);
  }
  return { guest, verbose };
}

/** Tells what is being done, and how long it took. */
async function step<T>(title: string, work: (onProgress: (line: string) => void) => Promise<T>): Promise<T> {
  interrupted.signal.throwIfAborted();
  const started = performance.now();
  say(`${bold('==>')} ${title}`);
  const result = await work((line) => say(dim(`    ${line}`)));
  say(dim(`    ready (${seconds(performance.now() - started)})`));
  return result;
}

async function runExample(
  { title, manifest }: Example,
  { dir, host, verbose }: { dir: string; host: string; verbose: boolean },
): Promise<RunResult> {
  interrupted.signal.throwIfAborted();
  const file = join(dir, 'job.yaml');
  await writeFile(file, manifest);
  say(`\n${bold('==>')} ${title}`);
  for (const line of manifest.trimEnd().split('\n')) say(dim(`    ${line}`));
  say(`\n  ${bold('$ cijob run -f job.yaml --host host.yaml')}`);
  const flags = verbose ? ['--verbose'] : [];
  const result = await cijobRun(['-f', file, '--host', host, ...flags], say, interrupted.signal);
  say(`  ${bold(`exit code ${result.exitCode}`)} ${dim(`(${seconds(result.milliseconds)})`)}`);
  return result;
}

/** Everything, below one directory. Returns whether each job ended as it should. */
async function demonstrate(runDir: string, { guest, verbose }: Options): Promise<boolean> {
  await using stack = new AsyncDisposableStack();
  const dir = await makeTempDir('files');
  stack.defer(() => rm(dir, { recursive: true }));
  const machine = await prepareMachine({ runDir, dir, guest, stack, step });
  const host = join(dir, 'host.yaml');
  await writeFile(host, machine.host);
  say(`\n${bold('==>')} the Incus host, host.yaml`);
  for (const line of machine.host.trimEnd().split('\n')) say(dim(`    ${line}`));
  const rows: string[][] = [];
  const wrong: string[] = [];
  for (const example of examples(machine.image, machine.sources)) {
    const result = await runExample(example, { dir, host, verbose });
    interrupted.signal.throwIfAborted();
    const { phase, times, exitCode, milliseconds } = result;
    rows.push([
      example.title,
      phase,
      String(exitCode),
      times.Provisioning ?? '-',
      times.Running ?? '-',
      times.Collecting ?? '-',
      seconds(milliseconds),
    ]);
    if (exitCode !== example.exitCode) {
      wrong.push(`${example.title}: exit code ${exitCode} instead of ${example.exitCode}`);
    }
  }
  say(`\n${bold('==>')} what happened`);
  const head = ['', 'PHASE', 'EXIT', 'PROVISIONING', 'RUNNING', 'COLLECTING', 'IN ALL'];
  for (const line of table([head, ...rows])) say(`    ${line}`);
  for (const what of wrong) say(`    not as it should be: ${what}`);
  return wrong.length === 0;
}

async function main(): Promise<number> {
  const options = readOptions();
  if (!options) {
    say(help);
    return 0;
  }
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    throw new Error(
      'the demo starts a real Incus and may install packages, so it must be root on Debian 12 or newer: run ' +
        '`sudo npm run demo`, best on a throw-away machine. (`npm test` needs neither.)',
    );
  }
  const started = performance.now();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (!interrupted.signal.aborted) say(`${name}: taking everything down …`);
      interrupted.abort(new Error('interrupted'));
    });
  }
  const runDir = await makeTempDir('demo');
  // Whoever makes a temporary directory from now on makes it in ours, where it is found if it is left.
  process.env['TMPDIR'] = runDir;
  const outcome = await demonstrate(runDir, options).catch((error: unknown) => ({ error }));
  const leftovers = await findLeftovers(runDir);
  await clearLeftovers(runDir);
  if (interrupted.signal.aborted) {
    say('interrupted; what the demo had started is gone');
    return 130;
  }
  if (typeof outcome === 'object') throw outcome.error;
  say(`    ${leftovers.length === 0 ? 'nothing was left behind' : 'left behind, and cleared away now:'}`);
  for (const what of leftovers) say(`      ${what}`);
  say(dim(`    the whole demo took ${seconds(performance.now() - started)}`));
  return outcome && leftovers.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
