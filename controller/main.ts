import { Command, InvalidArgumentError, Option } from 'commander';
import { ManifestError } from './api/manifest.ts';
import type { ControllerOptions } from './cli/controller.ts';
import { UsageError } from './cli/usage-error.ts';
import { addLane } from './cli/lanes.ts';
import { flushOutputs, note, out, watchOutputs } from './cli/output.ts';
import { plan, type PlanOptions } from './cli/plan.ts';
import { programEnd } from './cli/program-end.ts';
import { run, type RunOptions } from './cli/run.ts';
import { exitCodes } from './standalone/progress.ts';
import { logLevels } from './telemetry/log.ts';
import { programVersion } from './version.ts';

const program = new Command('cijob')
  .description('Runs CI jobs in throw-away Incus instances, each attempt at most once.')
  .version(programVersion)
  .showHelpAfterError('(cijob --help tells how it is used)')
  .configureOutput({ writeOut: (text) => void out(text), writeErr: (text) => note(text.trimEnd()) })
  .exitOverride();

const list = (value: string, before: string[] = []) => [...before, value];

program
  .command('run')
  .description('run CiJob manifests on an Incus host and wait for them; no cluster is needed')
  .requiredOption(
    '-f, --file <file>',
    'manifests with CiJobs, YAML or JSON, or a directory of them; "-" is standard input; may be given again',
    list,
  )
  .option('--host <file>', 'manifest with IncusHosts; the default is the Incus of this machine', list, [])
  .option('-i, --identity <file>', 'private key for hosts that are reached through SSH')
  .addOption(
    new Option('-o, --output <format>', 'text: the log; json: the finished CiJobs')
      .choices(['text', 'json'])
      .default('text'),
  )
  .option(
    '--artifacts <directory>',
    'save what each job left and its spec.artifacts names, as NAME.tar.gz there',
  )
  .addOption(
    new Option('--host-grace-seconds <n>', 'how long a host may be unreachable before its jobs count as lost')
      .argParser(positive)
      .default(600),
  )
  .option('-q, --quiet', 'show no phases')
  .option('-v, --verbose', 'show each Incus command')
  .addHelpText(
    'after',
    `
Also as \`kubectl cijob run\` it does not talk to a cluster: jobs run on the Incus of this machine, or on that of --host.
Files are read as \`kubectl create\` does: also lists, generateName and UTF-16; objects of other kinds are skipped.
The log goes to standard output, phases and their times to standard error. Of several jobs, each line of a log comes
after the name of its job.
Ctrl-C cancels the jobs and cleans up; so do SIGTERM, SIGQUIT and SIGHUP, and a standard output that nobody reads any
more or that cannot be written. Exit codes:
  the command's own    the command ran
  ${exitCodes.usage}                   the manifest is invalid
  ${exitCodes.infrastructure}                   infrastructure failed: host, guest or runner
  ${exitCodes.output}                   standard output could not be written: the disk is full
  ${exitCodes.config}                   the job and the host do not fit: image, mounts, instance type
  ${exitCodes.cancelled}                  cancelled
  ${exitCodes.readerGone}                  nobody reads standard output any more: \`cijob run … | head\`

An instance that a \`cijob run\` left behind, because it was killed or its host was out of reach, is removed by the next
one on that host and project: at once if that runs where the dead one ran, else when the lease that the instance carries
(\`incus config get INSTANCE user.cijob.expires\`) is over. Instances of a run that lives are left alone.

Example:
  cijob run -f docs/examples/cijob-container.yaml`,
  )
  .action(async (options: RunOptions) => {
    process.exitCode = await run(options);
  });

program
  .command('plan')
  .description('print what `cijob run` would send to Incus for CiJob manifests, and change nothing')
  .requiredOption(
    '-f, --file <file>',
    'manifests with CiJobs, YAML or JSON, or a directory of them; "-" is standard input; may be given again',
    list,
  )
  .option('--host <file>', 'manifest with IncusHosts; the default is the Incus of this machine', list, [])
  .option('-i, --identity <file>', 'private key for hosts that are reached through SSH')
  .option('--offline', 'ask no host anything; what only it knows stays open')
  .addOption(
    new Option('-o, --output <format>', 'text: lines of the incus client; json: the same as data')
      .choices(['text', 'json'])
      .default('text'),
  )
  .addHelpText(
    'after',
    `
Also as \`kubectl cijob plan\` it does not talk to a cluster: it asks the Incus of this machine, or that of --host.
The host is asked for the image, the profiles, and where the mounts lead; nothing is made or changed. Values of the
job's environment are never printed. Exit codes:
  0                    every job could run
  ${exitCodes.usage}                   the manifest is invalid
  ${exitCodes.infrastructure}                   no host could be asked
  ${exitCodes.config}                   a host refuses a job: image, mounts, instance type, size

Example:
  cijob plan --offline -f docs/examples/cijob-mounts.yaml`,
  )
  .action(async (options: PlanOptions) => {
    process.exitCode = await plan(options);
  });

program
  .command('controller')
  .description('reconcile the CiJobs of a Kubernetes cluster until told to stop')
  .option('--kubeconfig <file>', 'cluster to talk to; default: $KUBECONFIG, the pod, ~/.kube/config')
  .option('--context <name>', 'context of the kubeconfig')
  .option(
    '-n, --namespace <name>',
    "the controller's own namespace: its lease, and the Secrets of IncusHosts",
  )
  .option('--metrics-address <address>', 'where /metrics, /healthz and /readyz are served', ':8080')
  .addOption(new Option('--concurrency <n>', 'jobs reconciled at once').argParser(positive).default(16))
  .addOption(
    new Option('--host-grace-seconds <n>', 'how long a host may be unreachable before its jobs count as lost')
      .argParser(positive)
      .default(600),
  )
  .addOption(
    new Option(
      '--orphan-grace-seconds <n>',
      'how long an instance may be without its CiJob before it is removed',
    )
      .argParser(positive)
      .default(60),
  )
  .option(
    '--lane <name>',
    'value of the label ci.pikaci.dev/lane that metrics tell apart; may be given again',
    addLane,
    [],
  )
  .option(
    '--log-dir <directory>',
    'keep the logs and artifacts of jobs there, on a volume; default: keep none',
  )
  .addOption(
    new Option('--log-max-bytes <n>', 'the most bytes kept of the logs of one job')
      .argParser(positive)
      .default(64 * 2 ** 20, '64 MiB'),
  )
  .addOption(
    new Option(
      '--log-total-bytes <n>',
      'the most bytes kept of all logs and artifacts; the oldest finished job goes first',
    )
      .argParser(positive)
      .default(10 * 2 ** 30, '10 GiB'),
  )
  .addOption(
    new Option('--artifacts-max-bytes <n>', 'the most bytes of the archive of the artifacts of one job')
      .argParser(positive)
      .default(256 * 2 ** 20, '256 MiB'),
  )
  .option('--log-address <address>', 'where logs and artifacts are served over HTTPS', ':8443')
  .option('--tls-cert <file>', 'certificate to serve logs with, PEM; read again when it is replaced')
  .option('--tls-key <file>', 'private key of the certificate, PEM')
  .addOption(new Option('--log-level <level>', 'least level to log').choices(logLevels).default('info'))
  .addOption(
    new Option('--log-format <format>', 'format of the log').choices(['json', 'text']).default('json'),
  )
  .addHelpText(
    'after',
    `
Exits 0 when stopped by SIGTERM or SIGINT, and 1 when its lease is lost: what runs in guests goes on, and the next
controller takes it up.`,
  )
  .action(async (options: ControllerOptions) => {
    // Half a second of libraries that the other subcommands do without.
    const { controller } = await import('./cli/controller.ts');
    // Whoever has lost the lease must not write one more byte, whatever is still under way.
    process.exit(await controller(options));
  });

if (wantsCluster(process.argv[2])) {
  const { addClusterCommands } = await import('./cli/cluster-commands.ts');
  addClusterCommands(program);
}

program
  .command('version')
  .description('print the version')
  .action(() => out(`${programVersion}\n`));

/** The cluster's libraries take half a second to load, which the subcommands that need no cluster do without. */
function wantsCluster(subcommand: string | undefined): boolean {
  return !['run', 'plan', 'controller', 'version', '--version', '-V'].includes(subcommand ?? '');
}

function positive(value: string): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < 1)
    throw new InvalidArgumentError('It must be a whole number from 1 up.');
  return number;
}

programEnd.listen();
watchOutputs();
// Only a mistake of ours leads here: whatever is waited for keeps the program alive, and at the end it exits by itself.
process.once('beforeExit', () => {
  const command = process.argv[2] ?? '';
  process.stderr.write(
    `cijob: ${command} waits for something that can no longer happen; please report this\n`,
  );
  process.exit(exitCodes.infrastructure);
});
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
await flushOutputs();
process.exit();

/** Says what is wrong, without a stack trace, and returns the exit code. */
function report(error: unknown): number {
  if (error instanceof Error && 'exitCode' in error && typeof error.exitCode === 'number') {
    // Commander has said it already.
    return error.exitCode === 0 ? 0 : exitCodes.usage;
  }
  note(`cijob: ${error instanceof Error ? error.message : String(error)}`);
  return error instanceof ManifestError || error instanceof UsageError
    ? exitCodes.usage
    : exitCodes.infrastructure;
}
