import type { Device, InstanceDefinition } from './commands.ts';
import { printableLine } from '../printable.ts';
import { shortened } from './start-errors.ts';
import { instanceOf, operationEnded, type IncusEvent, type Instance, type Operation } from './schemas.ts';

/** An instance, as we last saw it. */
export interface InstanceView {
  readonly name: string;
  readonly type: Instance['type'];
  /** `Other`: on its way from one to another, or Incus could not tell (a container whose monitor is slow to answer). */
  readonly status: 'Running' | 'Stopped' | 'Frozen' | 'Other';
  /** Milliseconds since the epoch, by the host's clock, when it was made; undefined when not read yet. */
  readonly createdAt?: number;
  /** Whether it was ever started. One that was not is half made when nobody is making it. */
  readonly everStarted: boolean;
  /** Milliseconds since the epoch, by the host's clock, when it was last started; 0 when never. */
  readonly startedAt: number;
  /** Whether the guest announced over /dev/incus that it is ready. */
  readonly announcedReady: boolean;
  /** Only keys that matter to us: `user.cijob.*`. */
  readonly labels: Readonly<Record<string, string>>;
  readonly devices: Readonly<Record<string, Device>>;
  /** What else of its configuration a job's limits and safety rest on, its profiles included. */
  readonly settings: Readonly<Record<string, string>>;
  /** Operations that run on it. */
  readonly operations: ReadonlySet<string>;
}

/** An operation that has ended. Kept for a while, because its end may be told before anybody asks. */
export interface EndedOperation {
  readonly succeeded: boolean;
  /** Exit code of an exec. */
  readonly returnCode: number | undefined;
  readonly error: string;
}

/** What an event changed, for whoever must react. */
export interface Change {
  instance: string;
  /** The instance is new or altered in a way that the event does not spell out: read it. */
  mustRead: boolean;
}

const labelPrefix = 'user.cijob.';
/** Everything else Incus itself writes, or it is of no concern to us: `volatile.*`, `image.*`, `user.*`. */
const settingPrefixes = [
  labelPrefix,
  'boot.',
  'cloud-init.',
  'limits.',
  'linux.',
  'nvidia.',
  'raw.',
  'security.',
];
/** Operations that ended and nobody asked for, kept at most. */
const endedKept = 4096;

/**
 * What an Incus server holds, kept current by events after one list. Pure bookkeeping: no I/O, no clock.
 *
 * Events come out of order and twice, so an operation's end is final, and an instance's death stays until a list or
 * a read says otherwise.
 */
export class Inventory {
  #instances = new Map<string, InstanceView>();
  readonly #expected = new Map<string, InstanceView>();
  /** Operations that run, and the instance that each is about. */
  readonly #running = new Map<string, string>();
  readonly #ended = new Map<string, EndedOperation>();

  /** Starts over from a list of everything. */
  replace(instances: readonly Instance[], operations: readonly Operation[]): void {
    this.#running.clear();
    this.#instances = new Map(instances.map((instance) => [instance.name, view(instance)]));
    for (const operation of operations) this.operation(operation);
  }

  get(name: string): InstanceView | undefined {
    return this.#instances.get(name);
  }

  all(): IterableIterator<InstanceView> {
    return this.#instances.values();
  }

  get size(): number {
    return this.#instances.size;
  }

  isRunning(operation: string): boolean {
    return this.#running.has(operation);
  }

  /** Whether operations run on an instance of this name. It need not be there (yet, or any more). */
  isBusy(instance: string): boolean {
    for (const name of this.#running.values()) if (name === instance) return true;
    return false;
  }

  ended(operation: string): EndedOperation | undefined {
    return this.#ended.get(operation);
  }

  /** Takes in one instance as just read; undefined when it is not there. */
  put(name: string, instance: Instance | undefined): void {
    if (!instance) {
      this.#instances.delete(name);
      return;
    }
    this.#instances.set(name, { ...view(instance), operations: this.#operationsOn(name) });
  }

  /** Says what an instance that is about to be made will be, so that news of it needs no reading. */
  expect(definition: InstanceDefinition): void {
    this.#expected.set(
      definition.name,
      view({
        ...definition,
        status: 'Stopped',
        last_used_at: '',
        config: { ...definition.config },
        devices: { ...definition.devices },
        profiles: [...definition.profiles],
      }),
    );
  }

  /** Takes an expectation back. */
  unexpect(name: string): void {
    this.#expected.delete(name);
  }

  /** Notes that an instance was started, by one who knows, unless that is known already. */
  started(name: string, startedAt: number): void {
    const instance = this.#instances.get(name) ?? this.#expected.get(name);
    if (!instance || instance.everStarted) return;
    this.#instances.set(name, { ...instance, status: 'Running', everStarted: true, startedAt });
  }

  /** Takes in one event. Returns what it changed, if it is about an instance. */
  apply(event: IncusEvent): Change | undefined {
    if (event.type === 'operation') return this.operation(event.metadata);
    const { action, source } = event.metadata;
    if (!action.startsWith('instance-')) return undefined;
    const [, kind, rawName, ...below] = (source.split('?')[0] ?? '').split('/').slice(1);
    if (kind !== 'instances' || !rawName || below.length > 0) return undefined;
    const name = decodeURIComponent(rawName);
    const before = this.#instances.get(name);
    switch (action) {
      case 'instance-deleted':
        this.#instances.delete(name);
        return { instance: name, mustRead: false };
      case 'instance-started':
      case 'instance-restarted':
        return this.#update(name, {
          status: 'Running',
          everStarted: true,
          startedAt: Date.parse(event.timestamp),
          announcedReady: false,
        });
      case 'instance-ready':
      case 'instance-agent-started':
        return this.#update(name, { announcedReady: true });
      case 'instance-stopped':
      case 'instance-shutdown':
        return this.#update(name, { status: 'Stopped', announcedReady: false });
      case 'instance-created': {
        const expected = this.#expected.get(name);
        if (before || !expected) return { instance: name, mustRead: before === undefined };
        this.#instances.set(name, { ...expected, operations: this.#operationsOn(name) });
        return { instance: name, mustRead: false };
      }
      case 'instance-updated':
      case 'instance-renamed':
      case 'instance-paused':
      case 'instance-resumed':
        return { instance: name, mustRead: true };
      default:
        return undefined;
    }
  }

  /** Takes in the state of an operation. */
  operation(operation: Operation): Change | undefined {
    // Somebody looks on in the guest, such as the reader of its log: that is nothing done to the instance.
    if (operation.class === 'websocket') return undefined;
    const name = instanceOf(operation);
    if (operationEnded(operation)) {
      this.#running.delete(operation.id);
      this.#remember(operation);
    } else {
      if (this.#ended.has(operation.id)) return undefined;
      if (name !== undefined) this.#running.set(operation.id, name);
    }
    if (name === undefined) return undefined;
    const instance = this.#instances.get(name);
    if (instance) {
      const operations = new Set(instance.operations);
      if (operationEnded(operation)) operations.delete(operation.id);
      else operations.add(operation.id);
      this.#instances.set(name, { ...instance, operations });
    }
    return operationEnded(operation) ? { instance: name, mustRead: false } : undefined;
  }

  #operationsOn(name: string): ReadonlySet<string> {
    return new Set([...this.#running].filter(([, instance]) => instance === name).map(([id]) => id));
  }

  #update(name: string, change: Partial<InstanceView>): Change {
    const before = this.#instances.get(name);
    if (!before) return { instance: name, mustRead: true };
    this.#instances.set(name, { ...before, ...change });
    return { instance: name, mustRead: false };
  }

  #remember(operation: Operation): void {
    const returned = operation.metadata?.['return'];
    this.#ended.set(operation.id, {
      succeeded: operation.status_code === 200,
      returnCode: typeof returned === 'number' ? returned : undefined,
      error: shortened(printableLine(operation.err), 1024),
    });
    const oldest = this.#ended.keys().next();
    if (this.#ended.size > endedKept && !oldest.done) this.#ended.delete(oldest.value);
  }
}

function statusOf(status: string): InstanceView['status'] {
  // Ready is what Running becomes once the guest has announced that it is.
  if (status === 'Running' || status === 'Ready') return 'Running';
  return status === 'Stopped' || status === 'Frozen' ? status : 'Other';
}

function timeOf(text: string): number {
  return Math.max(0, Date.parse(text) || 0);
}

function view(instance: Instance): InstanceView {
  const startedAt = timeOf(instance.last_used_at);
  const labels = Object.entries(instance.config).filter(([key]) => key.startsWith(labelPrefix));
  return {
    name: instance.name,
    type: instance.type,
    status: statusOf(instance.status),
    ...(instance.created_at === undefined ? {} : { createdAt: timeOf(instance.created_at) }),
    everStarted: startedAt > 0,
    startedAt,
    announcedReady: instance.status === 'Ready',
    labels: Object.fromEntries(labels.map(([key, value]) => [key.slice(labelPrefix.length), value])),
    devices: instance.devices,
    settings: {
      profiles: instance.profiles.join(','),
      ...Object.fromEntries(
        Object.entries(instance.config).filter(([key]) =>
          settingPrefixes.some((prefix) => key.startsWith(prefix)),
        ),
      ),
    },
    operations: new Set(),
  };
}
