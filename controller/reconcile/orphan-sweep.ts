import type { Clock } from '../clock.ts';
import type { Command } from '../incus/commands.ts';
import type { InstanceView } from '../incus/inventory.ts';
import type { CommandOutcome } from '../incus/outcome.ts';

export interface OrphanSweepOptions {
  clock: Clock;
  hosts: { perform(host: string, command: Command): Promise<CommandOutcome> };
  /** Instances that nobody looks after, on hosts that are connected; undefined while that is not known. */
  orphans: () => { host: string; instance: InstanceView }[] | undefined;
  /** How long an instance must have been an orphan before it is removed, in milliseconds. */
  grace: number;
  onRemoved: (host: string, instance: InstanceView) => void;
  onError: (host: string, instance: InstanceView, message: string) => void;
}

const interval = 15_000;

/** Being made, or taken away, by somebody who sees to it. A command that runs in an instance is no reason to wait. */
const isInTheMaking = ({ status, operations }: InstanceView) => status !== 'Running' && operations.size > 0;

/** Removes instances that nobody looks after any more. */
export class OrphanSweep {
  readonly #options: OrphanSweepOptions;
  /** When each orphan was first seen. */
  readonly #since = new Map<string, number>();
  #removing: { host: string; instance: InstanceView } | undefined;
  #cancel: () => void = () => undefined;
  #stopped = false;

  constructor(options: OrphanSweepOptions) {
    this.#options = options;
  }

  /** The instance whose removal is under way. */
  get removing(): { host: string; instance: InstanceView } | undefined {
    return this.#removing;
  }

  /** Sweeps now and then until stopped. */
  start(): void {
    this.#cancel = this.#options.clock.after(interval, () => {
      void this.sweep().finally(() => {
        if (!this.#stopped) this.start();
      });
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  /** One sweep over all hosts. */
  async sweep(): Promise<void> {
    const { clock, orphans: find, grace } = this.#options;
    const orphans = find();
    if (!orphans) return;
    const now = clock.now();
    const names = new Set(orphans.map(({ host, instance }) => `${host}/${instance.name}`));
    for (const name of this.#since.keys()) if (!names.has(name)) this.#since.delete(name);
    for (const { host, instance } of orphans) {
      const name = `${host}/${instance.name}`;
      const since = this.#since.get(name) ?? now;
      this.#since.set(name, since);
      if (now - since >= grace && !isInTheMaking(instance)) {
        this.#removing = { host, instance };
        await this.#remove(host, instance);
        this.#removing = undefined;
      }
    }
  }

  async #remove(host: string, instance: InstanceView): Promise<void> {
    const { hosts, onRemoved, onError } = this.#options;
    const { uid = '', controller } = instance.labels;
    const of = { instance: instance.name, uid, ...(controller === undefined ? {} : { controller }) };
    const verbs = instance.status === 'Stopped' ? (['delete'] as const) : (['stop', 'delete'] as const);
    for (const verb of verbs) {
      const outcome = await hosts.perform(host, { verb, ...of });
      if (outcome.kind === 'done' || outcome.kind === 'gone') continue;
      onError(host, instance, 'message' in outcome ? outcome.message : outcome.kind);
      return;
    }
    onRemoved(host, instance);
  }
}
