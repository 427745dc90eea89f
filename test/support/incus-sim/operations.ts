import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../controller/clock.ts';
import type { AttachedExec } from './attached-exec.ts';
import type { EventHub } from './events.ts';
import { Refusal } from './reply.ts';

/** An operation as `/1.0/operations/ID` shows it. */
export interface OperationJson {
  id: string;
  class: 'task' | 'websocket';
  description: string;
  created_at: string;
  updated_at: string;
  status: 'Pending' | 'Running' | 'Success' | 'Failure';
  status_code: 105 | 103 | 200 | 400;
  resources: Record<string, string[]>;
  metadata: Record<string, unknown> | null;
  may_cancel: boolean;
  err: string;
  location: string;
}

/** How long an operation can still be looked at after its end, in milliseconds (measured: 5 s). */
const kept = 5_000;

/** One operation: began, and some time ends. */
export class Operation {
  readonly json: OperationJson;
  readonly project: string;
  /** Code that `/wait` answers when the operation failed; the operation itself always says 400. */
  failureCode = 500;
  /** Its WebSockets, if it is an exec that waits for them. */
  attached: AttachedExec | undefined;
  readonly #hub: EventHub;
  readonly #clock: Clock;
  #waiting: (() => void)[] = [];
  #onEnd: () => void;

  constructor(json: OperationJson, project: string, hub: EventHub, clock: Clock, onEnd: () => void) {
    this.json = json;
    this.project = project;
    this.#hub = hub;
    this.#clock = clock;
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.json.status === 'Success' || this.json.status === 'Failure';
  }

  /** Reports progress: new metadata, still running. */
  update(metadata: Record<string, unknown>): void {
    if (this.ended) return;
    this.json.metadata = metadata;
    this.json.updated_at = new Date(this.#clock.now()).toISOString();
    this.tell();
  }

  succeed(metadata?: Record<string, unknown>): void {
    this.#end('Success', 200, metadata);
  }

  fail(code: number, err: string, metadata?: Record<string, unknown>): void {
    this.failureCode = code;
    this.#end('Failure', 400, metadata, err);
  }

  /** Calls `run` when the operation has ended. */
  onEnded(run: () => void): void {
    if (this.ended) run();
    else this.#waiting.push(run);
  }

  /** Sends the operation as it is now. */
  tell(): void {
    this.#hub.emit('operation', this.json, this.project);
  }

  #end(status: 'Success' | 'Failure', code: 200 | 400, metadata?: Record<string, unknown>, err = ''): void {
    if (this.ended) return;
    const last = metadata && { ...this.json, metadata };
    this.json.status = status;
    this.json.status_code = code;
    this.json.err = err;
    if (metadata) this.json.metadata = metadata;
    this.tell();
    // As measured: the last "Running", which already holds the return code, mostly comes after the end.
    if (last) this.#hub.emit('operation', last, this.project);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const run of waiting) run();
    this.#onEnd();
  }
}

/** All operations of one run of incusd. They do not outlive it. */
export class Operations {
  readonly #hub: EventHub;
  readonly #clock: Clock;
  readonly #all = new Map<string, Operation>();

  constructor(hub: EventHub, clock: Clock) {
    this.#hub = hub;
    this.#clock = clock;
  }

  /** Begins an operation on an instance and announces it. */
  begin(
    description: string,
    project: string,
    resources: Record<string, string[]>,
    metadata: Record<string, unknown> | null = null,
  ): Operation {
    const id = randomUUID();
    const now = new Date(this.#clock.now()).toISOString();
    const json: OperationJson = {
      id,
      // Only an exec that waits for WebSockets has metadata from the start.
      class: metadata ? 'websocket' : 'task',
      description,
      created_at: now,
      updated_at: now,
      status: 'Pending',
      status_code: 105,
      resources,
      metadata,
      may_cancel: false,
      err: '',
      location: 'none',
    };
    const forget = () => void this.#clock.after(kept, () => this.#all.delete(id));
    const operation = new Operation(json, project, this.#hub, this.#clock, forget);
    this.#all.set(id, operation);
    operation.tell();
    json.status = 'Running';
    json.status_code = 103;
    operation.tell();
    return operation;
  }

  find(id: string): Operation | undefined {
    return this.#all.get(id);
  }

  get(id: string): Operation {
    const operation = this.find(id);
    if (!operation) throw new Refusal(404, 'Operation not found');
    return operation;
  }

  /** Those of one project, by lower-case status, as `/1.0/operations` groups them. */
  list(project: string): Record<string, OperationJson[]> {
    const groups: Record<string, OperationJson[]> = {};
    for (const { json, project: of } of this.#all.values())
      if (of === project) (groups[json.status.toLowerCase()] ??= []).push(json);
    return groups;
  }

  /** Forgets all of them, as a killed incusd does; nobody is told. */
  clear(): void {
    this.#all.clear();
  }
}
