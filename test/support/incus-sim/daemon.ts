import type { Clock } from '../../../controller/clock.ts';
import { EventHub } from './events.ts';
import { Execs } from './execs.ts';
import type { GuestScript } from './guest-script.ts';
import type { HostFiles } from './host-files.ts';
import { type Config, SimInstance } from './instance.ts';
import { type Operation, Operations } from './operations.ts';
import { Power } from './power.ts';
import { Refusal } from './reply.ts';
import type { RunnerCounts } from './runner.ts';
import type { SimProject, Store } from './store.ts';
import { checkRecord, checkRequest, type CreateBody, type ExecBody } from './validation.ts';
import { OperationFailure, Work } from './work.ts';

/** How long things take, in milliseconds. On the real thing, with a busybox container: 110, 120, 600 and 20. */
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
}

/** What is remembered of an instance: little, so that thousands may come and go. */
export interface Life {
  name: string;
  /** As it was asked for. */
  config: Config;
  counts: RunnerCounts;
}

/**
 * What incusd does to instances, in the order, with the events and in the words that were observed on Incus 6.0.4.
 * HTTP is elsewhere; what outlives a kill is in the Store.
 */
export class Daemon {
  readonly parts: DaemonParts;
  readonly hub: EventHub;
  readonly operations: Operations;
  readonly power: Power;
  /** Every instance ever made, also those deleted since, in order. */
  readonly lives: Life[] = [];
  readonly #work: Work;
  readonly #execs: Execs;

  constructor(parts: DaemonParts) {
    this.parts = parts;
    this.hub = new EventHub(parts.clock);
    this.operations = new Operations(this.hub, parts.clock);
    this.#work = new Work(parts.clock, this.hub, this.operations);
    this.power = new Power(this.#work, parts);
    this.#execs = new Execs(this.#work);
  }

  project(name: string): SimProject {
    const project = this.parts.store.projects.get(name);
    if (!project) throw new Refusal(404, 'Project not found');
    return project;
  }

  instance(project: string, name: string): SimInstance {
    const instance = this.parts.store.projects.get(project)?.instances.get(name);
    if (instance) return instance;
    throw new Refusal(404, `Failed to fetch instance "${name}" in project "${project}": Instance not found`);
  }

  create(body: CreateBody, projectName: string): Operation {
    const project = this.parts.store.projects.get(projectName);
    if (!project) throw new Refusal(404, 'Failed loading project: Project not found');
    checkRequest(body, project);
    const suffix = projectName === 'default' ? '' : `?project=${encodeURIComponent(projectName)}`;
    const resources = { instances: [`/1.0/instances/${body.name}${suffix}`] };
    return this.#work.begin('Creating instance', projectName, resources, (operation) => {
      const instance = this.#record(body, project);
      const context = { location: 'none', 'storage-pool': 'default', type: instance.type };
      this.#work.lifecycle('instance-created', instance, context);
      this.#work.later(this.parts.timings.create, operation, () => {
        operation.update({
          create_instance_from_image_unpack_progress: 'Unpacking image: 100% (37.12MB/s)',
          progress: { percent: '100', speed: '37117644', stage: 'create_instance_from_image_unpack' },
        });
        instance.set({ 'volatile.apply_template': 'create' });
        instance.busy = undefined;
        if (body.start) this.power.bringUp(instance, operation);
        else operation.succeed();
      });
    });
  }

  remove(instance: SimInstance): Operation {
    if (instance.power !== 'Stopped') throw new Refusal(400, 'Instance is running');
    const resources = { instances: [instance.url] };
    return this.#work.begin('Deleting instance', instance.project.name, resources, (operation) => {
      this.#work.claim(instance, 'delete', 'Failed to create instance delete operation: ');
      this.#work.later(this.parts.timings.delete, operation, () => {
        instance.project.instances.delete(instance.name);
        operation.succeed();
        this.#work.lifecycle('instance-deleted', instance);
      });
    });
  }

  exec(instance: SimInstance, body: ExecBody): Operation {
    return this.#execs.begin(instance, body);
  }

  /** Something changed an instance's config or devices. */
  updated(instance: SimInstance): void {
    this.#work.lifecycle('instance-updated', instance);
  }

  fileRetrieved(instance: SimInstance, path: string): void {
    this.#work.lifecycle('instance-file-retrieved', instance, { path }, false);
  }

  /** incusd dies: operations and listeners with it. Instances go on; of execs, those in containers go on too. */
  kill(): void {
    this.#work.abandon();
    this.hub.cut();
    this.operations.clear();
    for (const { instances } of this.parts.store.projects.values())
      for (const instance of instances.values()) {
        this.power.interrupted(instance);
        if (instance.type === 'virtual-machine') instance.guest.killExecs();
      }
  }

  #record(body: CreateBody, project: SimProject): SimInstance {
    const { store, host, clock, virtualMachines } = this.parts;
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
    checkRecord(body, project, { store, host, virtualMachines });
    const instance: SimInstance = new SimInstance(
      { ...body, fingerprint: image.fingerprint, imageLinks: image.links },
      project,
      this.parts.guest(body.name),
      clock,
      {
        ready: () => this.power.announced(instance),
        reboot: () => this.power.rebootFromInside(instance),
        poweroff: () => this.power.poweroffFromInside(instance),
      },
    );
    instance.busy = 'create';
    project.instances.set(body.name, instance);
    this.lives.push({ name: body.name, config: body.config ?? {}, counts: instance.guest.runner.counts });
    return instance;
  }
}
