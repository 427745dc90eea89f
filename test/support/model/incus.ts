import type { InstanceDefinition } from '../../../controller/incus/commands.ts';
import type { GuestFile } from '../../../controller/incus/client.ts';
import { IncusError } from '../../../controller/incus/errors.ts';
import type { IncusEvent, Instance, Operation } from '../../../controller/incus/schemas.ts';
import { ModelGuest, type Fate } from './guest.ts';

/** One instance of the model. */
export interface ModelInstance extends Instance {
  guest: ModelGuest;
  /** The operation that works on it. */
  busy: string | undefined;
  booted: boolean;
}

/** A step that Incus will take by itself. */
export interface Work {
  readonly words: string;
  readonly run: () => void;
  /** The operation it belongs to. */
  readonly operation: string | undefined;
}

const epoch = '1970-01-01T00:00:00Z';

/** A model of one Incus server: requests take effect at once or in steps, and everything is told in events. */
export class ModelIncus {
  readonly name: string;
  readonly type: 'container' | 'virtual-machine';
  up = true;
  /** It cannot tell what its running instances are at. */
  monitorsHang = false;
  readonly instances = new Map<string, ModelInstance>();
  /** Every instance ever made, also those deleted since. */
  readonly lives: ModelInstance[] = [];
  readonly operations = new Map<string, Operation>();
  /** Steps that may be taken now. Those of one operation come one after the other. */
  work: Work[] = [];
  readonly listeners = new Set<(event: IncusEvent) => void>();
  readonly #now: () => number;
  readonly #fateOf: (name: string) => Fate;
  #count = 0;

  constructor(name: string, type: ModelIncus['type'], now: () => number, fateOf: (name: string) => Fate) {
    this.name = name;
    this.type = type;
    this.#now = now;
    this.#fateOf = fateOf;
  }

  list(): Instance[] {
    return [...this.instances.values()].map((instance) => this.shown(instance));
  }

  /** An instance as a list or a read shows it. */
  shown(instance: ModelInstance): Instance {
    const { name, type, status, config, devices, profiles, created_at, last_used_at } = instance;
    const told = this.monitorsHang && status === 'Running' ? 'Error' : status;
    return { name, type, status: told, config, devices, profiles, created_at, last_used_at };
  }

  /** What is logged of an instance that did not start. */
  log(name: string): string {
    if (this.instances.get(name)?.guest.fate.kind !== 'does not start') return '';
    return `lxc ${name} 20260101120000.001 ERROR    conf - ../src/lxc/conf.c:mount_entry:2446 - No such device\n`;
  }

  instance(name: string): ModelInstance {
    const instance = this.instances.get(name);
    if (!instance) throw new IncusError('NotFound', `no instance ${name}`, 404);
    return instance;
  }

  create(definition: Omit<InstanceDefinition, 'fingerprint'>): Operation {
    const { name } = definition;
    const operation = this.#begin('Creating instance', name);
    this.#next(operation, `${this.name} makes ${name}`, () => {
      if (this.instances.has(name)) {
        this.#end(operation, 400, `Instance "${name}" already exists`);
        return;
      }
      const instance: ModelInstance = {
        name,
        type: definition.type,
        status: 'Stopped',
        config: { ...definition.config },
        devices: { ...definition.devices },
        profiles: [...definition.profiles],
        created_at: new Date(this.#now()).toISOString(),
        last_used_at: epoch,
        guest: new ModelGuest(this.#fateOf(name)),
        busy: operation.id,
        booted: false,
      };
      this.instances.set(name, instance);
      this.lives.push(instance);
      this.#lifecycle('instance-created', name);
      this.#next(operation, `${this.name} starts ${name}`, () => {
        instance.busy = undefined;
        if (instance.guest.fate.kind === 'does not start') {
          // As measured: the time of its last start is set, and no event says anything of one.
          instance.last_used_at = new Date(this.#now()).toISOString();
          this.#end(operation, 400, `Failed to run: incusd forkstart ${name}: exit status 1`);
          return;
        }
        this.#start(instance, 'instance-started');
        this.#end(operation);
      });
    });
    return { ...operation };
  }

  exec(name: string): Operation {
    const instance = this.instance(name);
    if (instance.status !== 'Running') throw new IncusError('Refused', 'Instance is not running', 400);
    const operation = this.#begin('Executing command', name);
    this.#next(operation, `the runner is launched in ${name}`, () => {
      if (!instance.booted) {
        this.#end(operation, 400, "VM agent isn't currently running");
        return;
      }
      instance.guest.launch((code) => {
        if (this.operations.has(operation.id)) this.#end(operation, 200, '', code);
      });
      this.#finishLater(instance);
    });
    return { ...operation };
  }

  stop(name: string): Operation {
    const instance = this.instance(name);
    const operation = this.#begin('Stopping instance', name);
    this.#next(operation, `${this.name} stops ${name}`, () => {
      if (instance.status === 'Stopped') this.#end(operation, 400, 'The instance is already stopped');
      else if (instance.busy !== undefined) this.#end(operation, 400, 'Instance is busy');
      else {
        this.#down(instance, 'instance-stopped');
        this.#end(operation);
      }
    });
    return { ...operation };
  }

  remove(name: string): Operation {
    const instance = this.instance(name);
    if (instance.status !== 'Stopped') throw new IncusError('Refused', 'Instance is running', 400);
    const operation = this.#begin('Deleting instance', name);
    this.#next(operation, `${this.name} deletes ${name}`, () => {
      if (this.instances.get(name) !== instance) this.#end(operation, 404, 'Instance not found');
      else if (instance.busy !== undefined || instance.status !== 'Stopped') {
        this.#end(operation, 400, 'Instance is busy');
      } else {
        this.instances.delete(name);
        this.#lifecycle('instance-deleted', name);
        this.#end(operation);
      }
    });
    return { ...operation };
  }

  file(name: string, path: string): GuestFile {
    const instance = this.instances.get(name);
    if (!instance) return { kind: 'missing' };
    if (instance.type === 'virtual-machine' && !instance.booted) {
      throw new IncusError('ServerError', "VM agent isn't currently running", 500);
    }
    const content = path.endsWith('result.json') ? instance.guest.result : 'the log\n';
    if (content === undefined) return { kind: 'missing' };
    const bytes = Buffer.from(content);
    return { kind: 'file', size: bytes.length, bytes };
  }

  /** Somebody else than the controller does this. */
  meddle(what: 'stop' | 'delete' | 'restart', name: string): void {
    const instance = this.instances.get(name);
    if (!instance || instance.busy !== undefined || instance.last_used_at === epoch) return;
    if (what === 'restart') this.#restart(instance);
    else this.#down(instance, 'instance-stopped');
    if (what !== 'delete') return;
    this.instances.delete(name);
    this.#lifecycle('instance-deleted', name);
  }

  /** incusd dies: operations and listeners with it; guests go on, what was half made stays so. */
  kill(): void {
    this.up = false;
    this.work = this.work.filter((step) => step.operation === undefined);
    this.operations.clear();
    for (const instance of this.instances.values()) {
      instance.busy = undefined;
      instance.guest.detach();
    }
  }

  #start(instance: ModelInstance, action: string): void {
    instance.status = 'Running';
    instance.last_used_at = new Date(this.#now()).toISOString();
    this.#lifecycle(action, instance.name);
    if (instance.type === 'container') instance.booted = true;
    else if (instance.guest.fate.kind !== 'never boots') {
      this.#later(`${instance.name} has booted`, () => {
        instance.booted = instance.status === 'Running';
      });
    }
  }

  #down(instance: ModelInstance, action: string): void {
    instance.status = 'Stopped';
    instance.booted = false;
    instance.guest.halt();
    this.#lifecycle(action, instance.name);
  }

  #restart(instance: ModelInstance): void {
    instance.guest.halt();
    instance.booted = false;
    this.#start(instance, 'instance-restarted');
  }

  /** The command ends some time. */
  #finishLater(instance: ModelInstance): void {
    const { guest } = instance;
    if (guest.runner !== 'running' || this.work.some(({ words }) => words === ending(instance))) return;
    this.#later(ending(instance), () => {
      if (guest.runner !== 'running' || this.instances.get(instance.name) !== instance) return;
      guest.finish({
        reboot: () => this.#restart(instance),
        poweroff: () => this.#down(instance, 'instance-shutdown'),
      });
    });
  }

  #begin(description: string, name: string): Operation {
    this.#count += 1;
    const operation: Operation = {
      id: `${this.name}-operation-${this.#count}`,
      class: 'task',
      description,
      created_at: new Date(this.#now()).toISOString(),
      status: 'Running',
      status_code: 103,
      resources: { instances: [`/1.0/instances/${name}`] },
      metadata: null,
      err: '',
    };
    this.operations.set(operation.id, operation);
    this.#tell({ type: 'operation', timestamp: operation.created_at, metadata: { ...operation } });
    return operation;
  }

  #end(operation: Operation, code = 200, err = '', returned?: number): void {
    if (!this.operations.delete(operation.id)) return;
    const instance = this.instances.get(operation.resources?.['instances']?.[0]?.split('/').pop() ?? '');
    if (instance?.busy === operation.id) instance.busy = undefined;
    operation.status_code = code;
    operation.status = code === 200 ? 'Success' : 'Failure';
    operation.err = err;
    operation.metadata = returned === undefined ? null : { return: returned };
    this.#tell({
      type: 'operation',
      timestamp: new Date(this.#now()).toISOString(),
      metadata: { ...operation },
    });
  }

  #next(operation: Operation, words: string, run: () => void): void {
    this.work.push({ words, run, operation: operation.id });
  }

  #later(words: string, run: () => void): void {
    this.work.push({ words, run, operation: undefined });
  }

  #lifecycle(action: string, name: string): void {
    this.#tell({
      type: 'lifecycle',
      timestamp: new Date(this.#now()).toISOString(),
      metadata: { action, source: `/1.0/instances/${name}`, name },
    });
  }

  #tell(event: IncusEvent): void {
    for (const listener of this.listeners) listener(event);
  }
}

function ending({ name }: ModelInstance): string {
  return `the command in ${name} comes to its end`;
}
