import type { Clock } from '../clock.ts';
import { printableLine } from '../printable.ts';
import type { UserInfo } from './access-review.ts';
import { unavailable, type Refusal } from './refusal.ts';

/** One line of the record of who had what of a CiJob. Strings are printable, and bounded in length and number. */
export interface AuditEntry {
  /** Before anything is given, after all of it was, or instead. */
  stage: 'opened' | 'closed' | 'refused';
  user: string;
  groups: readonly string[];
  verb: string;
  /** `cijobs/log`, `cijobs/artifacts`, `cijobs/shell`, `cijobs/rootshell` */
  resource: string;
  /** `namespace/name` of the CiJob. */
  job: string;
  /** Address of the client, and of the proxy between. */
  client: string;
  /** Of the CiJob, once it is found. */
  uid?: string;
  attempt?: number;
  host?: string;
  instance?: string;
  /** Code of the HTTP status: of a refusal, and of a read that was broken off. */
  code?: number;
  /** How it ended, in words. */
  outcome?: string;
  /** Bytes that were sent to the client, and that came from it. */
  bytesSent?: number;
  bytesReceived?: number;
  milliseconds?: number;
}

/** Where the record is kept. */
export interface AuditTrail {
  /** @throws Error when it cannot be kept. */
  record(entry: AuditEntry): void;
}

/** What a CiJob's part is that somebody gets. */
export type Opened = Pick<AuditEntry, 'uid' | 'attempt' | 'host' | 'instance'>;

/** Who wants what. */
export interface Wish {
  user: UserInfo;
  verb: string;
  subresource: string;
  namespace: string;
  name: string;
  client: string;
}

const maxName = 256;
const maxGroups = 16;

/** The part of an entry that stays the same for one request. */
export function wished({ user, verb, subresource, namespace, name, client }: Wish) {
  return {
    user: bounded(user.username),
    groups: (user.groups ?? []).slice(0, maxGroups).map(bounded),
    verb,
    resource: `cijobs/${subresource}`,
    job: `${namespace}/${name}`,
    client: bounded(client),
  };
}

function bounded(text: string): string {
  return printableLine(text.slice(0, maxName));
}

export interface AuditContext {
  trail: AuditTrail;
  clock: Clock;
  /** Hears why a line could not be recorded. */
  onError: (what: string, error: unknown) => void;
}

/** The record of one request of a known user: one line when it begins or is refused, and one when it is over. */
export class AuditedVisit {
  readonly #context: AuditContext;
  readonly #about: ReturnType<typeof wished>;
  #opened: (Opened & { at: number }) | undefined;
  #unrecordable = false;

  constructor(context: AuditContext, wish: Wish) {
    this.#context = context;
    this.#about = wished(wish);
  }

  /** To be called before anything is given away. @throws Refusal when it cannot be recorded: then nothing is given. */
  open(what: Opened): void {
    try {
      this.#context.trail.record({ stage: 'opened', ...this.#about, ...what });
    } catch (error) {
      this.#context.onError('audit', error);
      this.#unrecordable = true;
      throw unavailable('what is given away is recorded, and that is not possible now: nothing is given');
    }
    this.#opened = { ...what, at: this.#context.clock.now() };
  }

  /** Nothing was given. */
  refuse({ code, message }: Refusal): void {
    if (!this.#unrecordable)
      this.#last({ stage: 'refused', ...this.#about, code, outcome: bounded(message) });
  }

  /** It is over. Without effect where nothing was opened, and when called again. */
  close(end: Pick<AuditEntry, 'code' | 'outcome' | 'bytesSent' | 'bytesReceived'>): void {
    if (!this.#opened) return;
    const { at, ...what } = this.#opened;
    this.#opened = undefined;
    const outcome = bounded(end.outcome ?? '');
    const milliseconds = this.#context.clock.now() - at;
    this.#last({ stage: 'closed', ...this.#about, ...what, ...end, outcome, milliseconds });
  }

  get isOpen(): boolean {
    return this.#opened !== undefined;
  }

  /** What is over, or was refused, cannot be taken back: who reads the controller's log learns that a line is missing. */
  #last(entry: AuditEntry): void {
    try {
      this.#context.trail.record(entry);
    } catch (error) {
      this.#context.onError('audit', error);
    }
  }
}
