import { createHash } from 'node:crypto';
import type { CiJob } from '../api/cijob.ts';
import type { IncusHost } from '../api/incushost.ts';
import { apiVersion } from '../api/meta.ts';
import { systemClock } from '../clock.ts';
import { fit } from '../hosts/admission.ts';
import { refusalByGrants } from '../hosts/grants.ts';
import type { HostState } from '../hosts/host.ts';
import { offerOf } from '../hosts/candidate.ts';
import { commandLines, type Command, type Verb } from '../incus/commands.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import { printable, printableJson } from '../printable.ts';
import { createCommand, launchCommand, resolveCommand, slotRequestOf } from '../reconcile/desired.ts';
import type { Resolved } from '../reconcile/desired.ts';
import { instanceName, keyOf, specHash } from '../reconcile/names.ts';
import { exitCodes } from '../standalone/progress.ts';
import { readInput, type JobManifest } from './input.ts';
import { note, out } from './output.ts';
import { NoHostConnected, Standalone } from './standalone.ts';

export interface PlanOptions {
  file: string[];
  host: string[];
  identity?: string;
  output: 'text' | 'json';
  offline?: boolean;
}

/** What would happen to one job. */
export interface JobPlan {
  job: string;
  /** Name of the IncusHost it would go to. */
  host?: string;
  instance?: string;
  /** Why it would not run. */
  refused?: { reason: string; message: string };
  /** In the order in which they are sent, each as lines of the `incus` client. */
  commands: { verb: Verb; lines: string[] }[];
}

/** Asks a host about what a job refers to. Changes nothing. */
type Ask = (host: string, command: Command) => Promise<CommandOutcome>;

const attempt = 1;

/**
 * `cijob plan`: prints what would be sent to Incus for each job, and sends none of it. The host is asked what can be
 * asked without changing anything: the image's fingerprint, the profiles, where the mounts lead.
 *
 * @returns the exit code: 0 when every job could run, 78 when a host refuses one, 70 when one could not be asked.
 */
export async function plan(options: PlanOptions): Promise<number> {
  // One after the other, so that a plan made twice is the same.
  let end = 0;
  const input = await readInput([...options.file, ...options.host], () => end++);
  input.notes.forEach(note);
  if (options.offline)
    return await show(await planAll(input.jobs, input.hosts, anyHost, offline(input.hosts)), options);
  const standalone = new Standalone({
    input,
    identity: options.identity,
    observer: { status: () => undefined, command: () => undefined },
    onJob: () => undefined,
    say: note,
  });
  try {
    await standalone.connect();
    const { pool } = standalone;
    const state = ({ metadata }: IncusHost) => pool.state(metadata.name) ?? unknownHost;
    const ask: Ask = (host, command) => pool.perform(host, command);
    return await show(await planAll(input.jobs, input.hosts, state, ask), options);
  } catch (error) {
    if (!(error instanceof NoHostConnected)) throw error;
    throw new NoHostConnected(`${error.message}\nwith --offline, what needs no answer from a host is shown`);
  } finally {
    await standalone.close();
  }
}

const unknownHost: HostState = { kind: 'down', since: 0, reason: 'Unreachable', message: 'not connected' };

/** A host that could do anything its IncusHost says. */
function anyHost(): HostState {
  const instanceTypes = ['Container', 'VirtualMachine'] as const;
  return { kind: 'up', since: 0, version: '', instanceTypes, project: {} };
}

/** Answers with placeholders where a host would have to be asked. */
function offline(hosts: readonly IncusHost[]): Ask {
  return (name, command) => {
    if (command.verb !== 'resolve') throw new Error(`${command.verb} cannot be planned`);
    const spec = hosts.find(({ metadata }) => metadata.name === name)?.spec;
    const refused = spec && refusalByGrants(command.wanted, spec, {}, name);
    if (refused) return Promise.resolve(refused);
    return Promise.resolve({
      kind: 'resolved',
      fingerprint: `<fingerprint of ${command.wanted.image}>`,
      sources: Object.fromEntries(command.wanted.mounts.map(({ source }) => [source, source])),
    });
  };
}

/** Plans each job as if it were alone. */
export async function planAll(
  manifests: readonly JobManifest[],
  hosts: readonly IncusHost[],
  state: (host: IncusHost) => HostState,
  ask: Ask,
): Promise<JobPlan[]> {
  const plans: JobPlan[] = [];
  for (const manifest of manifests) plans.push(await planOne(jobOf(manifest), hosts, state, ask));
  return plans;
}

async function planOne(
  job: CiJob,
  hosts: readonly IncusHost[],
  state: (host: IncusHost) => HostState,
  ask: Ask,
): Promise<JobPlan> {
  const key = keyOf(job.metadata);
  const found = fit(
    slotRequestOf(job, {}),
    hosts.map((host) => offerOf(host, state(host))),
  );
  if (found.kind !== 'fits') {
    return { job: key, refused: { reason: found.reason, message: found.message }, commands: [] };
  }
  const { host } = found;
  const spec = hosts.find(({ metadata }) => metadata.name === host)?.spec;
  const instance = instanceName(job.metadata.uid, attempt);
  const resolve = resolveCommand(job, attempt);
  const outcome = await ask(host, resolve);
  const resolved = outcome.kind === 'resolved' ? outcome : undefined;
  const commands = [resolve, ...(resolved ? changes(job, resolved, spec?.storagePool ?? '') : [])];
  return {
    job: key,
    host,
    instance,
    ...(resolved ? {} : { refused: refusalOf(outcome) }),
    commands: commands.map((command) => ({
      verb: command.verb,
      lines: commandLines(command, spec?.project ?? ''),
    })),
  };
}

/** What is sent once the host has answered, in order. */
function changes(job: CiJob, resolved: Resolved, storagePool: string): Command[] {
  const { uid } = job.metadata;
  const instance = instanceName(uid, attempt);
  const surroundings = { controllerId: 'plan', storagePool };
  const launch = launchCommand(job, attempt);
  const names = new Map(job.spec.env.map(({ name }) => [name, Buffer.alloc(0)]));
  return [
    createCommand(job, attempt, resolved, surroundings),
    ...(job.spec.instance.type === 'VirtualMachine' ? [{ verb: 'probe', instance } as const] : []),
    // Only the names of variables are ever printed.
    { ...launch, environment: names },
    { verb: 'collect', instance, artifacts: job.spec.artifacts },
    { verb: 'stop', instance, uid },
    { verb: 'delete', instance, uid },
  ];
}

function refusalOf(outcome: CommandOutcome): { reason: string; message: string } {
  if (outcome.kind === 'refused') return { reason: outcome.reason, message: outcome.message };
  const message = 'message' in outcome ? outcome.message : outcome.kind;
  return { reason: 'HostUnreachable', message };
}

/** The job as it would be stored. Its uid follows from what it says, so that a plan made twice is the same. */
function jobOf({ metadata, spec }: JobManifest): CiJob {
  const digest = createHash('sha256')
    .update(`${keyOf(metadata)} ${specHash(spec)}`)
    .digest('hex');
  return {
    apiVersion,
    kind: 'CiJob',
    metadata: {
      name: metadata.name,
      namespace: metadata.namespace ?? 'default',
      uid: `plan-${digest.slice(0, 12)}`,
      generation: 1,
      creationTimestamp: new Date(systemClock.now()).toISOString(),
    },
    spec,
  };
}

async function show(plans: readonly JobPlan[], { output }: PlanOptions): Promise<number> {
  const text = output === 'json' ? `${printableJson(plans, 2)}\n` : plans.map(asText).join('\n');
  // A script keeps every byte; a terminal must not be steered by it.
  await out(process.stdout.isTTY ? printable(text) : text);
  const reasons = plans.flatMap(({ refused }) => refused?.reason ?? []);
  if (reasons.includes('HostUnreachable')) return exitCodes.infrastructure;
  return reasons.length > 0 ? exitCodes.config : 0;
}

const purposes: Record<Verb, string> = {
  resolve: 'ask for the image and where the mounts lead',
  create: 'make the instance with its devices, and start it: one request',
  probe: 'until the guest can take a command',
  launch: 'run the command, through the runner of the image',
  collect: 'read the result, and the end of the log',
  read: '',
  stop: 'when the job is over',
  delete: '',
};

/** A plan as a script that can be read, with what each part is for. */
export function asText({ job, host, instance, refused, commands }: JobPlan): string {
  const where = host === undefined ? '' : ` on host ${host}`;
  const what = instance === undefined ? '' : `, as ${instance} (the name follows from the job's uid)`;
  return [
    `# ${job}${where}${what}`,
    ...commands.flatMap(({ verb, lines }) => [...(purposes[verb] ? [`# ${purposes[verb]}`] : []), ...lines]),
    ...(refused ? [`# it would not run: ${refused.reason}: ${refused.message}`] : []),
    '',
  ].join('\n');
}
