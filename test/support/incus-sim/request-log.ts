import { matches, type RequestMatch } from './faults.ts';

/** A request that reached the simulated Incus, in the order of arrival. */
export interface LoggedRequest {
  method: string;
  /** Path without the query. */
  path: string;
  query: string;
  body: string;
}

/** All requests that came in. */
export class RequestLog {
  readonly entries: LoggedRequest[] = [];

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
