import { rm } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { clearLeftovers, findLeftovers } from '../e2e/support/leftovers.ts';
import { controlPlaneBinaries } from '../support/control-plane-binaries.ts';
import { ensurePackages } from '../support/debian-packages.ts';
import { guestImagePackages } from '../support/guest-image.ts';
import { incusPackages } from '../support/incusd.ts';
import { sshPackages } from '../support/sshd.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { ClusterRuns } from './cluster.ts';
import { Floor } from './floor.ts';
import { startGround } from './ground.ts';
import { measureQueue, reportQueue } from './queue.ts';
import { report, summary, type Samples } from './report.ts';
import { StandaloneRuns, wholeProgram } from './standalone.ts';

const help = `npm run bench [-- --rounds N] [-- --json] [-- --queue]

Measures one trivial job (\`true\` in a small container) three ways, in turn, on one real Incus on this machine:

  floor       the bare requests a job cannot do without, on Incus's local socket, by a client that does nothing else:
              create and start, run the runner, read result.json
  standalone  the parts of \`cijob run\` over real SSH, connected: from the job's creation to its terminal status
  cluster     a real kube-apiserver and the real controller over SSH: from sending the create to the watch event that
              shows Complete

The time to remove an instance is in none of them. What counts is the ratio between medians of one run: all of it
depends on the machine, and on what else it does. Needs root on Debian 12 or newer.

With --queue it measures something else: what a long queue costs the controller, with a simulated Incus and for any
user.

  --rounds N  rounds to measure, after two to warm up (default 15)
  --json      end with one line of JSON
  --queue     measure the CPU time of a step of the queue with 1,000 and 10,000 jobs, and that of a minute of waiting
  --help      show this
`;

const warmUps = 2;
const wholePrograms = 3;
const stopping = new AbortController();

function readOptions(): { rounds: number; json: boolean; queue: boolean } | undefined {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '15' },
      json: { type: 'boolean', default: false },
      queue: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) {
    throw new Error(`--rounds must be a whole number from 1 up, not ${values.rounds}`);
  }
  return { rounds, json: values.json, queue: values.queue };
}

async function measure(rounds: number, say: (line: string) => void): Promise<Samples> {
  await using stack = new AsyncDisposableStack();
  const dir = await makeTempDir('files');
  stack.defer(() => rm(dir, { recursive: true }));
  const ground = await startGround(dir, stack, say);
  const floor = stack.use(await Floor.start(ground));
  const standalone = stack.use(await StandaloneRuns.start(ground));
  const cluster = stack.use(await ClusterRuns.start(ground, dir, say));
  const samples: Samples = {
    floor: [],
    standalone: [],
    cluster: [],
    exitToTerminal: [],
    apiWrites: [],
    incusRequests: [],
    wholeProgram: [],
  };
  for (let round = 1 - warmUps; round <= rounds; round += 1) {
    stopping.signal.throwIfAborted();
    const name = `round-${round + warmUps}`;
    const turn = await inTurn(round, {
      floor: () => floor.run(`floor-${name}`),
      standalone: () => standalone.run(name),
      cluster: () => cluster.run(name),
    });
    const { floor: floorMs, standalone: standaloneMs, cluster: one } = turn;
    if (round < 1) continue;
    samples.floor.push(floorMs);
    samples.standalone.push(standaloneMs);
    samples.cluster.push(one.milliseconds);
    samples.exitToTerminal.push(one.terminalAt - (floor.execEnds.get(one.instance) ?? NaN));
    samples.apiWrites.push(one.apiWrites);
    samples.incusRequests.push(one.incusRequests);
    const [a, b, c] = [floorMs, standaloneMs, one.milliseconds].map((ms) => `${ms.toFixed(0)} ms`);
    say(`round ${round} of ${rounds}: floor ${a}, standalone ${b}, cluster ${c}`);
  }
  for (let count = 0; count < wholePrograms; count += 1) {
    samples.wholeProgram.push(await wholeProgram(ground));
  }
  return samples;
}

/** Does all, each round beginning with another one, so that none always profits from, or suffers by, its place. */
async function inTurn<T extends Record<string, () => Promise<unknown>>>(
  round: number,
  work: T,
): Promise<{ [K in keyof T]: Awaited<ReturnType<T[K]>> }> {
  const names = Object.keys(work);
  const first = (round + names.length) % names.length;
  const results: Record<string, unknown> = {};
  for (const name of [...names.slice(first), ...names.slice(0, first)]) results[name] = await work[name]?.();
  return results as { [K in keyof T]: Awaited<ReturnType<T[K]>> };
}

async function main(): Promise<number> {
  const options = readOptions();
  if (!options) {
    console.log(help);
    return 0;
  }
  const say = (line: string) => console.error(`bench: ${line}`);
  if (options.queue) {
    const measured = await measureQueue(say);
    for (const line of reportQueue(measured)) console.log(line);
    if (options.json) console.log(JSON.stringify(measured));
    return 0;
  }
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    throw new Error('it starts a real Incus, sshd and Kubernetes API: run it as root on Debian 12 or newer');
  }
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => stopping.abort(new Error(`${name}; what had been started is gone`)));
  }
  const packages = [...incusPackages, ...sshPackages, ...guestImagePackages, 'openssl'];
  await ensurePackages(packages, { reason: 'to measure', onProgress: say });
  await controlPlaneBinaries({ onProgress: say });
  const runDir = await makeTempDir('bench');
  process.env['TMPDIR'] = runDir;
  try {
    const samples = await measure(options.rounds, say);
    for (const line of report(samples)) console.log(line);
    if (options.json) console.log(JSON.stringify(summary(samples)));
  } finally {
    for (const what of await findLeftovers(runDir)) say(`left behind, and cleared away now: ${what}`);
    await clearLeftovers(runDir);
  }
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
