import { Argument, InvalidArgumentError, Option, type Command } from 'commander';
import { artifacts, type ArtifactsOptions } from './artifacts.ts';
import { cancel, hold, release, retry } from './change.ts';
import { jobNames, type ClusterFlags } from './cluster.ts';
import { complete, completionLines } from './complete.ts';
import { completion, shells, type Shell } from './completion.ts';
import { describe, type DescribeOptions } from './describe.ts';
import { get, type GetOptions } from './get.ts';
import { hosts, type HostsOptions } from './hosts.ts';
import { UsageError } from './usage-error.ts';
import { logs, type LogsOptions } from './logs.ts';
import { note, out } from './output.ts';
import { shell, type ShellOptions } from './shell.ts';

/** Adds the subcommands that talk to a cluster, which are those of `kubectl cijob`. */
export function addClusterCommands(program: Command): void {
  onCluster(program, 'get [name]')
    .description('list CiJobs, or show one in a line')
    .option('-A, --all-namespaces', 'of every namespace')
    .option('-l, --selector <labels>', 'only those with these labels')
    .option('-w, --watch', 'keep up to date until interrupted')
    .addOption(output(['table', 'wide', 'json', 'name'], 'table'))
    .action(act((name: string | undefined, options: GetOptions) => get(name, options)));
  onCluster(program, 'describe <name>')
    .description('tell all about a CiJob: its phases and their times, why it waits or failed')
    .addOption(output(['text', 'json'], 'text'))
    .action(act((name: string, options: DescribeOptions) => describe(name, options)));
  onServer(program, 'logs <name>')
    .description("print a CiJob's log")
    .option('-f, --follow', 'print what is added, until the job is over')
    .addOption(new Option('--offset <bytes>', 'begin at this byte').argParser(whole(0)).default(0))
    .addOption(new Option('--attempt <n>', 'of an earlier attempt').argParser(whole(1)))
    .action(act((name: string, options: LogsOptions) => logs(name, options)));
  onServer(program, 'artifacts <name>')
    .description('save what a finished CiJob left and its spec.artifacts names, as a .tar.gz')
    .option('-o, --output <file>', 'file to write; "-" is standard output; default: NAME.tar.gz')
    .option('--force', 'overwrite the file')
    .addOption(new Option('--attempt <n>', 'only if it is of this attempt').argParser(whole(1)))
    .action(act((name: string, options: ArtifactsOptions) => artifacts(name, options)));
  onServer(program, 'shell <name> [command...]')
    .description('open a shell in the guest of a CiJob that runs or is on hold, or run a command there')
    .option('--root', "as root, not as the job's user: a right of its own, to create cijobs/rootshell")
    .addHelpText(
      'after',
      `
With a terminal it is interactive; without one, standard input, output and error are those of the command. What it
ends with is our exit code. What is done in the guest of a running job can change its outcome.

Examples:
  cijob shell actionlint
  cijob shell actionlint --root -- dmesg
  cijob shell actionlint -- cat /artifacts/result.json >result.json`,
    )
    .action(act((name: string, command: string[], options: ShellOptions) => shell(name, command, options)));
  onCluster(program, 'cancel <name>')
    .description('end a CiJob; its log and outcome are kept')
    .action(act((name: string, options: ClusterFlags) => cancel(name, options)));
  onCluster(program, 'retry <name>')
    .description('run a finished CiJob again, as a new one called NAME-retry-N')
    .action(act((name: string, options: ClusterFlags) => retry(name, options)));
  onCluster(program, 'hold <name>')
    .description('keep the instance of a CiJob if it fails, or has failed and is still there')
    .addOption(
      new Option('--seconds <n>', 'for how long from now').argParser(whole(1)).default(3600, 'one hour'),
    )
    .action(act((name: string, options: ClusterFlags & { seconds: number }) => hold(name, options)));
  onCluster(program, 'release <name>')
    .description('delete the kept instance of a failed CiJob now')
    .action(act((name: string, options: ClusterFlags) => release(name, options)));
  onCluster(program, 'hosts')
    .description('list IncusHosts and their room')
    .addHelpText(
      'after',
      `
What is on a host, and whose it is, in Incus's own words:
  incus list --project PROJECT -c ns,user.cijob.namespace:NAMESPACE,user.cijob.name:JOB,user.cijob.controller:OWNER,user.cijob.expires:EXPIRES
Orphans of a cluster are removed by its controller. An owner that begins with "run:" is a \`cijob run\`: what a dead one
left is removed by the next one on that host and project.`,
    )
    .addOption(output(['table', 'json'], 'table'))
    .action(act((options: HostsOptions) => hosts(options)));
  program
    .command('completion')
    .description('print a script for the shell that completes commands, flags and names')
    .addArgument(new Argument('<shell>').choices(shells))
    .action((of: Shell) => out(completion(of)));
  program
    .command('__complete [words...]', { hidden: true })
    .description('tell a shell what can come next on the command line')
    .action(async (words: readonly string[]) => {
      // A cluster that cannot be asked has no names to offer, and a command line is no place to say why.
      const names = (flags: ClusterFlags) => jobNames(flags).catch(() => []);
      await out(completionLines(await complete(program, words, names)));
    });
}

function onCluster(program: Command, usage: string): Command {
  return program
    .command(usage)
    .option('--kubeconfig <file>', 'cluster to talk to; default: $KUBECONFIG, ~/.kube/config')
    .option('--context <name>', 'context of the kubeconfig')
    .option('-n, --namespace <name>', "default: the context's");
}

/** A subcommand that also talks to the controller's own server. */
function onServer(program: Command, usage: string): Command {
  return onCluster(program, usage)
    .option(
      '--controller-namespace <name>',
      'namespace of the controller, whose server is reached through the API server; default: $CIJOB_CONTROLLER_NAMESPACE, cijob-system',
    )
    .option('--server <url>', "reach the controller's server by itself, there; default: $CIJOB_LOG_SERVER")
    .option(
      '--certificate-authority <file>',
      "with --server: authority of its certificate, PEM, beside the usual ones and the cluster's; default: $CIJOB_LOG_CA",
    )
    .option('--tls-server-name <name>', 'with --server: name in its certificate, if not that of the URL');
}

function output(formats: readonly string[], usual: string): Option {
  return new Option('-o, --output <format>', 'format').choices(formats).default(usual);
}

/** Runs a subcommand. What goes wrong on the cluster is one line and exit code 1, as with kubectl. */
function act<A extends unknown[]>(run: (...args: A) => Promise<number>): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      process.exitCode = await run(...args);
    } catch (error) {
      if (error instanceof UsageError) throw error;
      const message = error instanceof Error ? error.message : String(error);
      note(`cijob: ${message.replaceAll(/\s*\n\s*/g, '; ')}`);
      process.exitCode = 1;
    }
  };
}

function whole(least: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^\d{1,15}$/.test(value) || number < least)
      throw new InvalidArgumentError(`It must be a whole number from ${least} up.`);
    return number;
  };
}
