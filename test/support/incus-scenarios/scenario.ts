/** An answer of an Incus, simulated or real. */
export interface Answer {
  status: number;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  text: string;
}

/** Events of one stream, in the order they came. */
export interface EventReader {
  readonly seen: readonly SeenEvent[];
  /** Waits until an event for which `wanted` says true has come (before or after this call); fails after 10 s. */
  until(wanted: (event: SeenEvent) => boolean): Promise<SeenEvent>;
  close(): void;
}

/** A WebSocket of an exec. */
export interface ByteStream {
  /** All bytes that came. */
  text(): string;
  readonly closed: Promise<void>;
  /** Sends bytes, or a text message. */
  send(data: Buffer | string): void;
  terminate(): void;
}

/** An event as it came. */
export interface SeenEvent {
  type: string;
  project?: string;
  metadata: Record<string, unknown>;
}

/** An Incus to hold a scenario against: the simulator, or the real thing. */
export interface Endpoint {
  request(
    method: string,
    path: string,
    options?: { body?: unknown; headers?: Record<string, string>; abortAfter?: number },
  ): Promise<Answer>;
  /** Opens `/1.0/events?<query>`; rejects with the HTTP status as message when refused. */
  events(query: string): Promise<EventReader>;
  /** Opens another WebSocket; rejects with the HTTP status as message when refused. */
  stream(path: string): Promise<ByteStream>;
  /** Fingerprint of a busybox container image there. */
  image: string;
  /** A path in that image that is a symbolic link. */
  imageLink: string;
  /** An existing directory of the host, a link in the same parent that leads out of that parent, and the parent. */
  source: string;
  linkOut: string;
  parent: string;
  /** Makes a project with that config and a `default` profile with a root disk in the pool `default`. */
  addProject(name: string, config: Record<string, string>): Promise<void>;
  /** A name no one else uses, for an instance or a project. */
  unique(prefix: string): string;
}

/** One thing that was observed, as a check. */
export interface Scenario {
  name: string;
  run(incus: Endpoint): Promise<void>;
}

/** An operation as Incus shows it. */
export interface OperationSeen {
  id: string;
  class: string;
  description: string;
  status: string;
  status_code: number;
  created_at: string;
  resources: Record<string, string[]>;
  metadata: Record<string, unknown> | null;
  may_cancel: boolean;
  err: string;
  location: string;
}

/** What every answer of Incus's API is wrapped in. */
export interface EnvelopeSeen {
  type: string;
  status: string;
  status_code: number;
  operation: string;
  error_code: number;
  error: string;
  metadata: unknown;
}
