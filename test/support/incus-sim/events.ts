import type { Clock } from '../../../controller/clock.ts';

/** An event as it goes over the wire. Daemon-wide operations have no project. */
export interface EventJson {
  type: 'lifecycle' | 'operation' | 'logging';
  timestamp: string;
  metadata: unknown;
  location: string;
  project?: string;
}

/** Who listens, and to what: one project, or all of them. */
export interface Listener {
  types: ReadonlySet<string>;
  project: string | undefined;
  send: (text: string) => void;
  close: () => void;
}

/** What may befall events on their way. Each is off until set. */
export interface EventFaults {
  /** Each event comes twice. */
  duplicate?: boolean;
  /** Each event comes this much later, in milliseconds. */
  delay?: number;
  /** Events come in pairs swapped: the second of two first. A lone one waits for the next. */
  swap?: boolean;
  /** Events for which this says true never come. */
  lose?: (event: EventJson) => boolean;
}

/** Hands events to those who listen. Nothing is kept: who was not there has missed it. */
export class EventHub {
  readonly faults: EventFaults = {};
  readonly #clock: Clock;
  readonly #listeners = new Set<Listener>();
  #held: EventJson | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  /** Returns how to leave again. */
  join(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(type: EventJson['type'], metadata: unknown, project?: string): void {
    const event: EventJson = {
      type,
      timestamp: new Date(this.#clock.now()).toISOString(),
      // Events are snapshots: what changes later must not show in one that is still on its way.
      metadata: structuredClone(metadata),
      location: 'none',
      ...(project === undefined ? {} : { project }),
    };
    const { duplicate, delay, swap, lose } = this.faults;
    if (lose?.(event)) return;
    const order = swap ? this.#swapped(event) : [event];
    const copies = duplicate ? order.flatMap((one) => [one, one]) : order;
    if (delay === undefined) this.#deliver(copies);
    else this.#clock.after(delay, () => this.#deliver(copies));
  }

  /** Ends every stream. */
  cut(): void {
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
  }

  #swapped(event: EventJson): EventJson[] {
    const held = this.#held;
    this.#held = held ? undefined : event;
    return held ? [event, held] : [];
  }

  #deliver(events: readonly EventJson[]): void {
    for (const event of events)
      for (const { types, project, send } of this.#listeners)
        if (
          types.has(event.type) &&
          (project === undefined || event.project === undefined || event.project === project)
        )
          send(`${JSON.stringify(event)}\n`);
  }
}
