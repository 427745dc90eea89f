import { matches, type RequestMatch } from './faults.ts';

/** A request that reached the simulated Incus, in the order of arrival. */
export interface LoggedRequest {
  method: string;
  /** Path without the query. */
  path: string;
  query: string;
  body: string;
}

/** The requests that came in. */
export class RequestLog {
  /** How many of the latest are kept. All, unless a test runs for long. */
  keep = Infinity;
  readonly entries: LoggedRequest[] = [];

  add(entry: LoggedRequest): void {
    this.entries.push(entry);
    if (this.entries.length > this.keep) this.entries.shift();
  }

  /** Those that match, oldest first. */
  of(match: RequestMatch): LoggedRequest[] {
    return this.entries.filter((entry) => matches(match, entry));
  }

  count(match: RequestMatch = {}): number {
    return this.of(match).length;
  }

  clear(): void {
    this.entries.length = 0;
  }
}
