import type { DaemonParts } from './daemon.ts';
import type { SimInstance } from './instance.ts';
import type { Operation } from './operations.ts';
import { Refusal } from './reply.ts';
import { startErrors } from './start-errors.ts';
import { checkStart } from './validation.ts';
import { OperationFailure, type Work } from './work.ts';

const descriptions = {
  start: 'Starting instance',
  stop: 'Stopping instance',
  restart: 'Restarting instance',
  freeze: 'Freezing instance',
  unfreeze: 'Unfreezing instance',
};
type Action = keyof typeof descriptions;

/** Starting and stopping, asked for or by the guest itself. */
export class Power {
  readonly #work: Work;
  readonly #parts: DaemonParts;

  constructor(work: Work, parts: DaemonParts) {
    this.#work = work;
    this.#parts = parts;
  }

  /** `PUT /1.0/instances/N/state`. */
  change(instance: SimInstance, action: string, force: boolean): Operation {
    if (!isAction(action)) throw new Refusal(400, `Unknown action: '${action}'`);
    const resources = { instances: [instance.url] };
    return this.#work.begin(descriptions[action], instance.project.name, resources, (operation) => {
      switch (action) {
        case 'start':
          this.#start(instance, operation);
          break;
        case 'stop':
          this.#stop(instance, operation, force ? 'instance-stopped' : 'instance-shutdown');
          break;
        case 'restart':
          this.#restart(instance, operation);
          break;
        case 'freeze':
        case 'unfreeze':
          instance.power = action === 'freeze' ? 'Frozen' : 'Running';
          operation.succeed();
          this.#work.lifecycle(action === 'freeze' ? 'instance-paused' : 'instance-resumed', instance);
      }
    });
  }

  /** The last steps of a start: checks the devices again, then powers on. What fails here leaves the instance. */
  bringUp(instance: SimInstance, operation: Operation): void {
    checkStart(instance, this.#parts.host);
    this.#work.claim(instance, 'start');
    this.#work.later(this.#parts.timings.start, operation, () => {
      const log = startErrors(instance, this.#parts.host);
      instance.logs.set('lxc.log', log ?? '');
      if (log !== undefined) {
        this.#failedToStart(instance, operation);
        return;
      }
      this.#on(instance);
      operation.succeed();
      this.#work.lifecycle('instance-started', instance);
    });
  }

  /** The guest reboots itself: no operation, and one event without a requestor. */
  rebootFromInside(instance: SimInstance): void {
    instance.guest.halt();
    if (instance.guest.files.stuck) {
      // Measured: with a file server that hangs on a FIFO, the reboot never ends, and holds everything up.
      this.#off(instance);
      instance.busy = 'restart';
      return;
    }
    this.#work.clock.after(this.#parts.timings.start, () => {
      if (instance.power === 'Stopped') return;
      this.#off(instance);
      this.#on(instance);
      this.#work.lifecycle('instance-restarted', instance, undefined, false);
    });
  }

  /** The guest powers itself off. */
  poweroffFromInside(instance: SimInstance): void {
    instance.guest.halt();
    this.#work.clock.after(this.#parts.timings.stop, () => {
      if (instance.power === 'Stopped') return;
      this.#off(instance);
      this.#work.lifecycle('instance-shutdown', instance, undefined, false);
    });
  }

  /** The guest says that it is ready. */
  announced(instance: SimInstance): void {
    instance.ready = true;
    instance.set({ 'volatile.last_state.ready': 'true' });
    this.#work.lifecycle('instance-ready', instance, undefined, false);
  }

  /** incusd was killed: what it had begun to take down is down, anything else stays as it is. */
  interrupted(instance: SimInstance): void {
    const { busy } = instance;
    instance.busy = undefined;
    if (busy === 'stop' || busy === 'restart') this.#off(instance);
  }

  #start(instance: SimInstance, operation: Operation): void {
    if (instance.power !== 'Stopped') throw new OperationFailure(500, 'The instance is already running');
    if (instance.busy === 'start') {
      this.#work.join(instance, operation);
      return;
    }
    // Stuck in a reboot (see above): a start waits for ever.
    if (instance.busy === 'restart') return;
    if (instance.halfMade)
      throw new OperationFailure(
        500,
        `Failed to handle idmapped storage: Failed expanding symlinks of "": lstat containers/${instance.name}: no such file or directory`,
      );
    this.bringUp(instance, operation);
  }

  #stop(instance: SimInstance, operation: Operation, action: string): void {
    if (instance.power === 'Stopped') throw new OperationFailure(400, 'The instance is already stopped');
    if (instance.busy === 'stop') {
      this.#work.join(instance, operation);
      return;
    }
    this.#work.claim(instance, 'stop');
    instance.guest.halt();
    this.#work.later(this.#parts.timings.stop, operation, () => {
      this.#off(instance);
      operation.succeed();
      this.#work.lifecycle(action, instance);
      if (!instance.ephemeral) return;
      instance.project.instances.delete(instance.name);
      this.#work.lifecycle('instance-deleted', instance);
    });
  }

  #restart(instance: SimInstance, operation: Operation): void {
    if (instance.power === 'Stopped') throw new OperationFailure(400, 'The instance is already stopped');
    this.#work.claim(instance, 'restart');
    instance.guest.halt();
    const { stop, start } = this.#parts.timings;
    this.#work.later(stop + start, operation, () => {
      this.#off(instance);
      this.#on(instance);
      operation.succeed();
      this.#work.lifecycle('instance-restarted', instance);
    });
  }

  #on(instance: SimInstance): void {
    this.#used(instance);
    instance.power = 'Running';
    instance.guest.boot();
  }

  /** As measured: it is noted as running, though it never was, and no event says that it did not start. */
  #failedToStart(instance: SimInstance, operation: Operation): void {
    this.#used(instance);
    const { name } = instance;
    const [containers, configuration] = ['/var/lib/incus/containers', `/run/incus/${name}/lxc.conf`];
    const words = ['/usr/libexec/incus/incusd', 'forkstart', name, containers, configuration];
    operation.fail(500, `Failed to run: ${words.join(' ')}: exit status 1`);
  }

  #used(instance: SimInstance): void {
    instance.busy = undefined;
    instance.lastUsedAt = new Date(this.#work.clock.now()).toISOString();
    instance.set({ 'volatile.apply_template': undefined, 'volatile.last_state.power': 'RUNNING' });
  }

  #off(instance: SimInstance): void {
    instance.busy = undefined;
    instance.power = 'Stopped';
    instance.ready = false;
    instance.set({ 'volatile.last_state.power': 'STOPPED', 'volatile.last_state.ready': 'false' });
  }
}

function isAction(action: string): action is Action {
  return action in descriptions;
}
