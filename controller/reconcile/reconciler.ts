import type { CiJob } from '../api/cijob.ts';
import type { CiJobStatus } from '../api/cijob-status.ts';
import { bytesOf } from '../api/text.ts';
import type { Clock } from '../clock.ts';
import type { Command } from '../incus/commands.ts';
import type { Variables } from '../incus/environment-file.ts';
import type { InstanceView } from '../incus/inventory.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import { resolveCommand, slotRequestOf } from './desired.ts';
import { Environment, hasSecrets, UnusableEnvironment } from './environment.ts';
import { masked, tailBytes } from './masking.ts';
import { instanceName, keyOf } from './names.ts';
import {
  blankMemory,
  type Admission,
  type Memory,
  type Observed,
  type Patience,
  type RunnerView,
} from './observed.ts';
import { plan, type Plan } from './plan.ts';
import type { HostsPort, JobStore, Observer } from './ports.ts';
import { remember } from './remember.ts';
import { hasFinalizer, isFinished } from './step.ts';
import { worthWriting } from './worth-writing.ts';

export interface ReconcilerOptions {
  store: JobStore;
  hosts: HostsPort;
  clock: Clock;
  controllerId: string;
  patience: Patience;
  /** The namespace that the controller runs in, whose Secrets no job gets; undefined where it runs in none. */
  ownNamespace?: string | undefined;
  observer: Observer;
  /** Labels of a namespace, for the hosts' allowedNamespaces. */
  namespaceLabels: (namespace: string) => Readonly<Record<string, string>>;
  /** Whether none of these hosts will ever be in reach again, nor another one come. Left out: one may always come. */
  hostless?: (hosts: readonly string[]) => boolean;
  /** Has a job looked at again, because a command has come back. */
  wake: (key: string) => void;
}

/** What is remembered of one job between two looks. */
interface Cell {
  uid: string;
  memory: Memory;
  /** The newest status computed, whether or not it was worth writing. */
  draft: CiJobStatus | undefined;
  /** The stored status that the draft goes out from, as JSON. When another one is stored, the draft is void. */
  base: string;
  /** When the job's host was found to be missing. */
  hostMissingSince: number | undefined;
  /** Instances for which a slot is held. */
  slots: Set<string>;
  environment: Environment;
  /** The answer to a question that was asked while the job's admission was being written. */
  early: { host: string; instance: string; outcome: Promise<CommandOutcome> } | undefined;
  /** Ends the command that is under way. */
  underWay: AbortController | undefined;
  /** The one that will be cut short. */
  cutting: AbortController | undefined;
}

/** One round settles most jobs; a plan that never settles is a mistake that must not spin. */
const maxRounds = 8;

/**
 * Carries plans out: the thin shell around {@link plan}. Never waits for Incus: commands run on their own, and their
 * end wakes the job. May be called for different jobs at once, never for the same one.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #cells = new Map<string, Cell>();
  readonly #keysByInstance = new Map<string, string>();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  /**
   * Looks at one job and does what is to be done now. Returns when to look again, in milliseconds since the epoch.
   *
   * @param id names this look to the observer.
   */
  async reconcile(key: string, id: string): Promise<number | undefined> {
    let job = this.#options.store.get(key);
    if (!job) {
      this.#forget(key);
      return undefined;
    }
    const cell = this.#cellOf(key, job);
    const stored = JSON.stringify(job.status ?? {});
    if (stored !== cell.base) {
      cell.draft = undefined;
      cell.base = stored;
    }
    let planned: Plan | undefined;
    for (let round = 0; round < maxRounds; round += 1) {
      const before = cell.draft ?? job.status;
      planned = this.#plan(key, job, cell);
      const { status } = planned;
      const changed = JSON.stringify(before) !== JSON.stringify(status);
      if (status.host !== undefined && before?.host === undefined) this.#askEarly(job, cell, status);
      job = await this.#write(job, cell, planned, before, changed, id);
      cell.draft = status;
      this.#releaseEarlier(cell, planned);
      if (planned.cutShortIn !== undefined) this.#cutShort(cell, planned.cutShortIn);
      if (planned.commands.length > 0) {
        void this.#issue(key, job, cell, planned.commands, id);
        break;
      }
      if (!changed) break;
    }
    if (!planned) return undefined;
    const ours = hasFinalizer(job);
    if (planned.done) {
      this.#forget(key);
      if (ours) await this.#options.store.removeFinalizer(job);
      if (planned.expired) await this.#options.store.delete(job);
    }
    return planned.wakeAt;
  }

  /** The job that an instance was made for, as far as this process knows. */
  keyOfInstance(instance: string): string | undefined {
    return this.#keysByInstance.get(instance);
  }

  /** Jobs that are on a host, or left something there. */
  *keysOn(host: string): Generator<string> {
    for (const [key, cell] of this.#cells) {
      const status = cell.draft ?? this.#options.store.get(key)?.status;
      if (status?.host === host || status?.attempts?.some((attempt) => attempt.host === host)) yield key;
    }
  }

  /** Takes up the slot that a job's status says it holds. Do this for every job before the first is admitted. */
  adopt(key: string, job: CiJob): void {
    this.#takeUpSlot(key, this.#cellOf(key, job), job);
  }

  #plan(key: string, job: CiJob, cell: Cell): Plan {
    const { clock, hosts, patience } = this.#options;
    const current = cell.draft ? { ...job, status: cell.draft } : job;
    const attempt = current.status?.attempt ?? 1;
    if (cell.memory.attempt !== attempt && cell.memory.inFlight === undefined)
      cell.memory = blankMemory(attempt);
    const now = clock.now();
    const first = plan(current, this.#observe(current, cell, undefined), now, patience);
    if (!first.needsSlot) {
      // Suspended, called off or paused while it waited: what it may have been handed is for others.
      if (first.status.host === undefined) hosts.withdraw(key);
      return first;
    }
    const labels = this.#options.namespaceLabels(job.metadata.namespace ?? 'default');
    const request = slotRequestOf(current, labels);
    const admission = hosts.admit(request, instanceName(job.metadata.uid, attempt));
    return plan(current, this.#observe(current, cell, admission), now, patience);
  }

  #observe(job: CiJob, cell: Cell, admission: Admission | undefined): Observed {
    const { hosts, controllerId, clock } = this.#options;
    const { status } = job;
    const { memory } = cell;
    const hostName = status?.host;
    const host = hostName === undefined ? undefined : hosts.get(hostName);
    cell.hostMissingSince =
      hostName === undefined || host ? undefined : (cell.hostMissingSince ?? clock.now());
    const up = host?.state.kind === 'up';
    // What was lost with a connection that has been made anew says nothing of the new one.
    if (up && memory.problem?.outcome.kind === 'unknown' && memory.problem.at < host.state.since) {
      memory.problem = undefined;
    }
    const name = instanceName(job.metadata.uid, status?.attempt ?? 1);
    const all = hosts.instancesOf(job.metadata.uid);
    const earlier = (status?.attempts ?? []).flatMap((attempt) => attempt.host ?? []);
    return {
      controllerId,
      host:
        hostName === undefined
          ? undefined
          : host?.state.kind === 'up'
            ? { kind: 'up', since: host.state.since, storagePool: host.spec.storagePool }
            : host?.state.kind === 'down'
              ? host.state
              : {
                  kind: 'down',
                  since: cell.hostMissingSince ?? clock.now(),
                  reason: 'HostNotFound',
                  message: `there is no IncusHost ${hostName}`,
                },
      instance: up ? host.inventory.get(name) : undefined,
      underWay: up && host.inventory.isBusy(name),
      runner: up ? runnerOf(memory, host.inventory) : 'none',
      strays: all.filter((one) => isStray(job, one)),
      unseen: [...new Set(earlier)].filter((other) => hosts.get(other)?.state.kind !== 'up'),
      admission,
      hostless: admission?.kind === 'waiting' && (this.#options.hostless?.(admission.hosts) ?? false),
      memory,
    };
  }

  /** Makes durable what must be before the plan's commands may be sent. */
  async #write(
    job: CiJob,
    cell: Cell,
    planned: Plan,
    before: CiJobStatus | undefined,
    changed: boolean,
    id: string,
  ): Promise<CiJob> {
    const { store, observer, clock } = this.#options;
    let written = job;
    if (planned.finalizer && !hasFinalizer(job)) {
      written = await store.addFinalizer(written);
    }
    const worth = worthWriting(written.status, planned.status, clock.now());
    if (worth) {
      written = await store.writeStatus(written, planned.status);
      cell.base = JSON.stringify(written.status ?? {});
    }
    if (changed || worth) {
      observer.status({ job: written, before, after: planned.status, stored: worth, reconcileID: id });
    }
    this.#takeUpSlot(keyOf(job.metadata), cell, written);
    return written;
  }

  /** Sends commands one after the other, as long as each does its work, and wakes the job at the end. */
  async #issue(
    key: string,
    job: CiJob,
    cell: Cell,
    commands: readonly { host: string; command: Command }[],
    id: string,
  ): Promise<void> {
    const { memory } = cell;
    const { clock, observer, wake } = this.#options;
    memory.inFlight = commands[0]?.command.verb;
    for (const { host, command } of commands) {
      memory.inFlight = command.verb;
      const started = clock.now();
      cell.underWay = new AbortController();
      const outcome = await this.#perform(job, cell, host, command, cell.underWay.signal);
      cell.underWay = undefined;
      remember(memory, command, outcome, clock.now());
      const milliseconds = clock.now() - started;
      observer.command({ job, host, command, outcome, milliseconds, reconcileID: id });
      if (outcome.kind === 'refused' || outcome.kind === 'failed' || outcome.kind === 'unknown') break;
    }
    memory.inFlight = undefined;
    wake(key);
  }

  /** What the host is asked first changes nothing there, so it need not wait until the admission is durable. */
  #askEarly(job: CiJob, cell: Cell, { host = '', attempt = 1 }: CiJobStatus): void {
    const command = resolveCommand(job, attempt);
    const outcome = this.#options.hosts.perform(host, command);
    cell.early = { host, instance: command.instance, outcome };
  }

  async #perform(
    job: CiJob,
    cell: Cell,
    host: string,
    command: Command,
    signal: AbortSignal,
  ): Promise<CommandOutcome> {
    const { hosts } = this.#options;
    if (command.verb === 'collect') return this.#collect(job, cell, host, command, signal);
    if (command.verb !== 'resolve' && command.verb !== 'launch') return hosts.perform(host, command, signal);
    let environment: Variables;
    try {
      environment = await cell.environment.read(job);
    } catch (error) {
      if (error instanceof UnusableEnvironment)
        return { kind: 'refused', reason: error.reason, message: error.message };
      return { kind: 'failed', message: `reading a Secret: ${(error as Error).message}` };
    }
    if (command.verb === 'resolve') {
      const { early } = cell;
      cell.early = undefined;
      const asked = early?.host === host && early.instance === command.instance;
      return asked ? early.outcome : hosts.perform(host, command);
    }
    const outcome = await hosts.perform(host, { ...command, environment }, signal);
    return masked(outcome, await cell.environment.mask(job));
  }

  /** Reads what the guest left, and masks the job's Secrets in it before anything of it is remembered. */
  async #collect(
    job: CiJob,
    cell: Cell,
    host: string,
    command: Extract<Command, { verb: 'collect' }>,
    signal: AbortSignal,
  ): Promise<CommandOutcome> {
    const { hosts } = this.#options;
    if (!hasSecrets(job)) return hosts.perform(host, command, signal);
    const mask = await cell.environment.mask(job);
    const whole = { ...command, ...(mask && { logBytes: tailBytes(mask) }) };
    return masked(await hosts.perform(host, whole, signal), mask);
  }

  /** Leaves what is under way a short time to come to its end by itself, then has it end with what it has. */
  #cutShort(cell: Cell, milliseconds: number): void {
    const { underWay } = cell;
    if (!underWay || cell.cutting === underWay) return;
    cell.cutting = underWay;
    this.#options.clock.after(milliseconds, () => underWay.abort());
  }

  #cellOf(key: string, job: CiJob): Cell {
    const known = this.#cells.get(key);
    if (known?.uid === job.metadata.uid) return known;
    this.#forget(key);
    const cell: Cell = {
      uid: job.metadata.uid,
      memory: blankMemory(job.status?.attempt ?? 1),
      draft: undefined,
      base: JSON.stringify(job.status ?? {}),
      hostMissingSince: undefined,
      slots: new Set(),
      environment: new Environment(this.#options.store, this.#options.ownNamespace),
      early: undefined,
      underWay: undefined,
      cutting: undefined,
    };
    this.#cells.set(key, cell);
    return cell;
  }

  /** A stored status says who holds which slot, whoever wrote it. */
  #takeUpSlot(key: string, cell: Cell, job: CiJob): void {
    const { spec, status } = job;
    const name = status?.instance?.name;
    if (status?.host === undefined || name === undefined || cell.slots.has(name)) return;
    if (!hasFinalizer(job)) return;
    cell.slots.add(name);
    this.#keysByInstance.set(name, key);
    const { cpu, memory } = spec.instance;
    const namespace = job.metadata.namespace ?? 'default';
    const slot = { host: status.host, namespace, cpu, memoryBytes: bytesOf(memory) };
    this.#options.hosts.occupy(key, name, slot);
  }

  /** Gives back the slots of earlier attempts whose instances are gone. */
  #releaseEarlier(cell: Cell, { status, strays }: Plan): void {
    for (const instance of cell.slots) {
      if (instance === status.instance?.name || strays.includes(instance)) continue;
      cell.slots.delete(instance);
      this.#keysByInstance.delete(instance);
      this.#options.hosts.release(instance);
    }
  }

  #releaseSlots(key: string, cell: Cell): void {
    this.#options.hosts.withdraw(key);
    for (const instance of cell.slots) {
      this.#keysByInstance.delete(instance);
      this.#options.hosts.release(instance);
    }
    cell.slots.clear();
  }

  #forget(key: string): void {
    const cell = this.#cells.get(key);
    this.#options.hosts.withdraw(key);
    if (!cell) return;
    cell.underWay?.abort();
    this.#releaseSlots(key, cell);
    this.#cells.delete(key);
  }
}

/**
 * Whether an instance of the job is of an earlier attempt, or of any once the job is over. One that is of a later
 * attempt than the status tells of shows that our copy of the job is old. One of this attempt on another host is the
 * same instance, seen through two IncusHosts that lead to one project.
 */
function isStray(
  { metadata, status }: CiJob,
  { host, instance }: { host: string; instance: InstanceView },
): boolean {
  const attempt = status?.attempt ?? 1;
  if (instance.name === instanceName(metadata.uid, attempt) && host === status?.host) return false;
  if (isFinished({ status })) return true;
  const made = Number(instance.labels['attempt']);
  return made < attempt;
}

function runnerOf(
  memory: Memory,
  inventory: { isRunning(id: string): boolean; ended(id: string): RunnerView | undefined },
): RunnerView {
  const { operation } = memory;
  if (operation === undefined) return 'none';
  return inventory.ended(operation) ?? (inventory.isRunning(operation) ? 'running' : 'lost');
}
