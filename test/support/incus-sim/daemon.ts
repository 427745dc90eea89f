import type { Clock } from '../../../controller/clock.ts';
import { EventHub } from './events.ts';
import type { Exec } from './guest.ts';
import type { GuestScript } from './guest-script.ts';
import type { HostFiles } from './host-files.ts';
import { type Busy, SimInstance } from './instance.ts';
import { type Operation, Operations } from './operations.ts';
import { Refusal } from './reply.ts';
import type { SimProject, Store } from './store.ts';
import {
  checkRecord,
  checkRequest,
  checkStart,
  type CreateBody,
  type ExecBody,
  OperationFailure,
} from './validation.ts';

/** How long things take, in milliseconds. On the real thing (busybox container): 110, 120, 600, 20. */
export interface Timings {
  create: number;
  start: number;
  stop: number;
  delete: number;
}

/** What a simulated incusd is made of. */
export interface DaemonParts {
  clock: Clock;
  store: Store;
  host: HostFiles;
  timings: Timings;
  /** Whether this machine can run virtual machines. */
  virtualMachines: boolean;
  guest: (name: string) => GuestScript;
  /** Called when the job of an instance was launched and really ran; survives the instance. */
}

const requestor = { username: 'root', protocol: 'unix', address: '@' };

/**
 * What incusd does to instances, in the order, with the events and in the words that were observed on Incus 6.0.4.
 * HTTP is elsewhere; what outlives a kill is in the Store.
 */
export class Daemon {
  readonly hub: EventHub;
  readonly operations: Operations;
  readonly parts: DaemonParts;
  /** Every instance ever made, also those deleted since: what a test asks at the end. */
  readonly everMade: SimInstance[] = [];
  /** Counts runs of incusd: what an earlier run had begun is not carried on. */
  #run = 0;

  constructor(parts: DaemonParts) {
    this.parts = parts;
    this.hub = new EventHub(parts.clock);
    this.operations = new Operations(this.hub, parts.clock);
  }

  project(name: string): SimProject {
    const project = this.parts.store.projects.get(name);
    if (!project) throw new Refusal(404, 'Project not found');
    return project;
  }

  instance(project: string, name: string): SimInstance {
    const instance = this.parts.store.projects.get(project)?.instances.get(name);
    if (!instance)
      throw new Refusal(
        404,
        `Failed to fetch instance "${name}" in project "${project}": Instance not found`,
      );
    return instance;
  }

  create(body: CreateBody, projectName: string): Operation {
    const project = this.parts.store.projects.get(projectName);
    if (!project) throw new Refusal(404, 'Failed loading project: Project not found');
    checkRequest(body, project);
    const suffix = projectName === 'default' ? '' : `?project=${encodeURIComponent(projectName)}`;
    const operation = this.#begin('Creating instance', projectName, `/1.0/instances/${body.name}${suffix}`);
    this.#carry(operation, () => {
      const instance = this.#record(body, project);
      this.#lifecycle('instance-created', instance, {
        context: { location: 'none', 'storage-pool': 'default', type: instance.type },
      });
      this.#later(this.parts.timings.create, operation, () => {
        operation.update({
          create_instance_from_image_unpack_progress: 'Unpacking image: 100% (37.12MB/s)',
          progress: { percent: '100', speed: '37117644', stage: 'create_instance_from_image_unpack' },
        });
        instance.set({ 'volatile.apply_template': 'create' });
        instance.busy = undefined;
        if (!body.start) operation.succeed();
        else this.#bringUp(instance, operation, () => this.#lifecycle('instance-started', instance));
      });
    });
    return operation;
  }

  changeState(instance: SimInstance, action: string, force: boolean): Operation {
    const descriptions: Record<string, string> = {
      start: 'Starting instance',
      stop: 'Stopping instance',
      restart: 'Restarting instance',
      freeze: 'Freezing instance',
      unfreeze: 'Unfreezing instance',
    };
    const description = descriptions[action];
    if (description === undefined) throw new Refusal(400, `Unknown action: '${action}'`);
    const operation = this.#begin(description, instance.project.name, instance.url);
    this.#carry(operation, () => {
      switch (action) {
        case 'start': {
          this.#start(instance, operation);
          return;
        }
        case 'stop': {
          this.#stop(instance, operation, force ? 'instance-stopped' : 'instance-shutdown');
          return;
        }
        case 'restart': {
          this.#restart(instance, operation);
          return;
        }
        default:
          instance.power = action === 'freeze' ? 'Frozen' : 'Running';
          operation.succeed();
          this.#lifecycle(action === 'freeze' ? 'instance-paused' : 'instance-resumed', instance);
      }
    });
    return operation;
  }

  remove(instance: SimInstance): Operation {
    if (instance.power !== 'Stopped') throw new Refusal(400, 'Instance is running');
    const operation = this.#begin('Deleting instance', instance.project.name, instance.url);
    this.#carry(operation, () => {
      this.#claim(instance, 'delete', 'Failed to create instance delete operation: ');
      this.#later(this.parts.timings.delete, operation, () => {
        instance.project.instances.delete(instance.name);
        operation.succeed();
        this.#lifecycle('instance-deleted', instance);
      });
    });
    return operation;
  }

  exec(instance: SimInstance, body: ExecBody): Operation {
    if (instance.power === 'Stopped') throw new Refusal(400, 'Instance is not running');
    const { name } = instance;
    const operation = this.operations.begin('Executing command', instance.project.name, {
      containers: [instance.url],
      instances: [instance.url],
    });
    this.#carry(operation, () => {
      if (body.command.length === 0)
        throw new OperationFailure(500, 'Failed to retrieve PID of executing child process');
      if (instance.agentOffline) throw new OperationFailure(500, "VM agent isn't currently running");
      const base = `/1.0/instances/${name}/logs/exec-output/exec_${operation.json.id}`;
      const end = (code: number, output: string) => {
        if (body['record-output']) {
          instance.outputs.set(`exec_${operation.json.id}.stdout`, output);
          instance.outputs.set(`exec_${operation.json.id}.stderr`, '');
        }
        const files = { output: { '1': `${base}.stdout`, '2': `${base}.stderr` } };
        const metadata = { ...(body['record-output'] ? files : {}), return: code };
        if (code === 127) operation.fail(400, 'Command not found', metadata);
        else if (code === 126) operation.fail(400, 'Command not executable', metadata);
        else operation.succeed(metadata);
      };
      const exec = instance.guest.exec(
        { command: body.command, environment: body.environment ?? {} },
        (code: number, ended: Exec) => end(code, ended.output),
      );
      this.#lifecycle('instance-exec', instance, { context: { command: body.command } });
      if ('code' in exec) end(exec.code, '');
      // Measured on VMs: with neither recording nor websocket the command is killed within a second.
      else if (instance.type === 'virtual-machine' && !body['record-output'])
        this.parts.clock.after(500, () => exec.kill());
    });
    return operation;
  }

  /** Something changed config or devices. */
  updated(instance: SimInstance): void {
    this.#lifecycle('instance-updated', instance);
  }

  fileEvent(action: 'instance-file-retrieved', instance: SimInstance, path: string): void {
    this.#lifecycle(action, instance, { context: { path }, requestor: undefined });
  }

  /** incusd dies: operations and listeners with it. Instances go on; of execs, those in containers go on too. */
  kill(): void {
    this.#run += 1;
    this.hub.cut();
    this.operations.clear();
    for (const project of this.parts.store.projects.values())
      for (const instance of project.instances.values()) {
        instance.busy = undefined;
        if (instance.type === 'virtual-machine') instance.guest.killExecs();
      }
  }

  #record(body: CreateBody, project: SimProject): SimInstance {
    const { store, host, clock } = this.parts;
    const { fingerprint, alias } = body.source;
    const image = store.images.find(
      (one) => one.fingerprint === fingerprint || (alias !== undefined && one.aliases.includes(alias)),
    );
    if (!image) throw new OperationFailure(500, 'Image not provided for instance creation');
    if (image.type !== body.type)
      throw new OperationFailure(
        500,
        `Requested image's type "${image.type}" doesn't match instance type "${body.type}"`,
      );
    const refuse = (why: string) => new OperationFailure(500, `Failed creating instance record: ${why}`);
    if (body.type === 'virtual-machine' && !this.parts.virtualMachines)
      throw refuse(
        'Instance type "virtual-machine" is not supported on this server: vhost_vsock kernel module not loaded',
      );
    const before = project.instances.get(body.name);
    if (before?.busy === 'create') throw refuse('Instance is busy running a "create" operation');
    if (before)
      throw refuse(
        'Add instance info to the database: Failed to create "instances" entry: UNIQUE constraint failed: instances.project_id, instances.name',
      );
    checkRecord(body, store, host);
    const instance = new SimInstance(
      {
        name: body.name,
        type: body.type,
        fingerprint: image.fingerprint,
        profiles: body.profiles ?? ['default'],
        config: body.config ?? {},
        devices: body.devices ?? {},
        ephemeral: body.ephemeral,
      },
      project,
      this.parts.guest(body.name),
      clock,
      {
        ready: () => this.#announced(instance),
        reboot: () => this.rebootFromInside(instance),
        poweroff: () => this.poweroffFromInside(instance),
      },
    );
    instance.busy = 'create';
    project.instances.set(body.name, instance);
    this.everMade.push(instance);
    return instance;
  }

  #start(instance: SimInstance, operation: Operation): void {
    if (instance.power !== 'Stopped') throw new OperationFailure(500, 'The instance is already running');
    if (instance.busy === 'start') {
      this.#join(instance, operation);
      return;
    }
    if (
      instance.config['volatile.last_state.power'] === undefined &&
      !instance.config['volatile.apply_template']
    )
      throw new OperationFailure(
        500,
        `Failed to handle idmapped storage: Failed expanding symlinks of "": lstat containers/${instance.name}: no such file or directory`,
      );
    this.#bringUp(instance, operation, () => this.#lifecycle('instance-started', instance));
  }

  #bringUp(instance: SimInstance, operation: Operation, announce: () => void): void {
    // A start of an instance that is stuck in a reboot waits for ever (measured).
    if (instance.busy === 'restart') return;
    checkStart(instance.type, instance.devices, instance.project, this.parts.host);
    this.#claim(instance, 'start');
    this.#later(this.parts.timings.start, operation, () => {
      this.#on(instance);
      operation.succeed();
      announce();
    });
  }

  #stop(instance: SimInstance, operation: Operation, action: string): void {
    if (instance.power === 'Stopped') throw new OperationFailure(400, 'The instance is already stopped');
    if (instance.busy === 'stop') {
      this.#join(instance, operation);
      return;
    }
    this.#claim(instance, 'stop');
    instance.guest.halt();
    this.#later(this.parts.timings.stop, operation, () => {
      this.#off(instance);
      operation.succeed();
      this.#lifecycle(action, instance);
      if (!instance.ephemeral) return;
      instance.project.instances.delete(instance.name);
      this.#lifecycle('instance-deleted', instance);
    });
  }

  #restart(instance: SimInstance, operation: Operation): void {
    if (instance.power === 'Stopped') throw new OperationFailure(500, 'The instance is not running');
    this.#claim(instance, 'restart');
    instance.guest.halt();
    this.#later(this.parts.timings.stop + this.parts.timings.start, operation, () => {
      this.#off(instance);
      this.#on(instance);
      operation.succeed();
      this.#lifecycle('instance-restarted', instance);
    });
  }

  /** The guest reboots itself: no operation, and one event without a requestor. */
  rebootFromInside(instance: SimInstance): void {
    instance.guest.halt();
    if (instance.guest.files.stuck) {
      this.#off(instance);
      instance.busy = 'restart';
      return;
    }
    this.parts.clock.after(this.parts.timings.start, () => {
      if (instance.power === 'Stopped') return;
      this.#off(instance);
      this.#on(instance);
      this.#lifecycle('instance-restarted', instance, { requestor: undefined });
    });
  }

  poweroffFromInside(instance: SimInstance): void {
    instance.guest.halt();
    this.parts.clock.after(this.parts.timings.stop, () => {
      if (instance.power === 'Stopped') return;
      this.#off(instance);
      this.#lifecycle('instance-shutdown', instance, { requestor: undefined });
    });
  }

  #on(instance: SimInstance): void {
    instance.busy = undefined;
    instance.power = 'Running';
    instance.lastUsedAt = new Date(this.parts.clock.now()).toISOString();
    instance.set({
      'volatile.apply_template': undefined,
      'volatile.last_state.power': 'RUNNING',
      ...(instance.config['volatile.last_state.ready'] ? { 'volatile.last_state.ready': 'false' } : {}),
    });
    instance.guest.boot();
  }

  #off(instance: SimInstance): void {
    instance.busy = undefined;
    instance.power = 'Stopped';
    instance.ready = false;
    instance.set({ 'volatile.last_state.power': 'STOPPED', 'volatile.last_state.ready': 'false' });
  }

  #announced(instance: SimInstance): void {
    instance.ready = true;
    instance.set({ 'volatile.last_state.ready': 'true' });
    this.#lifecycle('instance-ready', instance, { requestor: undefined });
  }

  #begin(description: string, project: string, url: string): Operation {
    return this.operations.begin(description, project, { instances: [url] });
  }

  /** Runs the first step of an operation after the answer to its request is on its way. */
  #carry(operation: Operation, step: () => void): void {
    const run = this.#run;
    queueMicrotask(() => this.#step(run, operation, step));
  }

  #later(milliseconds: number, operation: Operation, step: () => void): void {
    const run = this.#run;
    this.parts.clock.after(milliseconds, () => this.#step(run, operation, step));
  }

  #step(run: number, operation: Operation, step: () => void): void {
    if (run !== this.#run) return;
    try {
      step();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      operation.fail(error.code, error.message);
    }
  }

  #claim(instance: SimInstance, busy: Busy, prefix = ''): void {
    if (instance.busy !== undefined)
      throw new OperationFailure(500, `${prefix}Instance is busy running a "${instance.busy}" operation`);
    instance.busy = busy;
  }

  /** A second start or stop ends well when the first does. */
  #join(instance: SimInstance, operation: Operation): void {
    const wait = () => {
      if (instance.busy === undefined) operation.succeed();
      else this.#later(1, operation, wait);
    };
    this.#later(1, operation, wait);
  }

  #lifecycle(action: string, instance: SimInstance, more: Record<string, unknown> = {}): void {
    const metadata = {
      action,
      source: instance.url,
      requestor,
      name: instance.name,
      project: instance.project.name,
      ...more,
    };
    this.hub.emit('lifecycle', metadata, instance.project.name);
  }
}
