import type { Clock } from '../../../controller/clock.ts';
import type { EventHub } from './events.ts';
import type { Busy, SimInstance } from './instance.ts';
import type { Operation, Operations } from './operations.ts';
import { Refusal } from './reply.ts';

/** A step of an operation that failed: the code `/wait` gives it, and its text. */
export class OperationFailure extends Refusal {
  override name = 'OperationFailure';
}

const requestor = { username: 'root', protocol: 'unix', address: '@' };

/** How operations go on, step by step, until incusd is killed. */
export class Work {
  readonly clock: Clock;
  readonly #hub: EventHub;
  readonly #operations: Operations;
  /** Counts runs of incusd: what an earlier run had begun is not carried on. */
  #run = 0;

  constructor(clock: Clock, hub: EventHub, operations: Operations) {
    this.clock = clock;
    this.#hub = hub;
    this.#operations = operations;
  }

  /**
   * Begins an operation on the instance at `url` and runs its first step once the answer to its request is on its
   * way. A step that throws a {@link Refusal} fails the operation.
   */
  begin(
    description: string,
    project: string,
    resources: Record<string, string[]>,
    first: (operation: Operation) => void,
    metadata: Record<string, unknown> | null = null,
  ): Operation {
    const operation = this.#operations.begin(description, project, resources, metadata);
    const run = this.#run;
    queueMicrotask(() => this.#step(run, operation, () => first(operation)));
    return operation;
  }

  later(milliseconds: number, operation: Operation, step: () => void): void {
    const run = this.#run;
    this.clock.after(milliseconds, () => this.#step(run, operation, step));
  }

  /** Marks an instance as being worked on, or fails because it is already. */
  claim(instance: SimInstance, busy: Busy, prefix = ''): void {
    if (instance.busy !== undefined)
      throw new OperationFailure(500, `${prefix}Instance is busy running a "${instance.busy}" operation`);
    instance.busy = busy;
  }

  /** Ends `operation` well when whatever the instance is busy with has ended. */
  join(instance: SimInstance, operation: Operation): void {
    this.later(1, operation, () => {
      if (instance.busy === undefined) operation.succeed();
      else this.join(instance, operation);
    });
  }

  /** Tells of something that happened to an instance; what a request did has a requestor, other things have none. */
  lifecycle(action: string, instance: SimInstance, context?: object, byRequest = true): void {
    const metadata = {
      action,
      source: instance.url,
      ...(context && { context }),
      ...(byRequest && { requestor }),
      name: instance.name,
      project: instance.project.name,
    };
    this.#hub.emit('lifecycle', metadata, instance.project.name);
  }

  /** Leaves everything as it is. */
  abandon(): void {
    this.#run += 1;
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
}
