import type { SimRequest } from './reply.ts';

/** What may befall a request. */
export type RequestFault =
  /** The connection dies: before the request took effect, or after (the answer is lost). */
  | { kind: 'drop'; when: 'before' | 'after' }
  /** It takes effect this much later, in milliseconds of the clock. */
  | { kind: 'delay'; milliseconds: number }
  /** It takes no effect and is answered with this. */
  | { kind: 'answer'; status: number; body: string }
  /** It takes effect, but the answer is not what Incus says. */
  | { kind: 'garble'; body?: string }
  /** It takes effect, but the answer is this many bytes long. */
  | { kind: 'flood'; bytes: number }
  /** It takes no effect and is never answered. */
  | { kind: 'hang' }
  /** incusd is killed: before the request took effect, or after. It stays down until the test restarts it. */
  | { kind: 'kill'; when: 'before' | 'after' };

/** Which requests a fault is for: unset means any. `path` is without the query. */
export interface RequestMatch {
  method?: string;
  path?: string | RegExp;
}

interface Rule {
  match: RequestMatch;
  fault: RequestFault;
  left: number;
}

/** The faults set on a simulated Incus. With none set, everything works. */
export class Faults {
  /**
   * Asked for every request, before the rules: for tests that stop something at each request in turn.
   * `count` is the number of the request, from 1.
   */
  each: ((request: SimRequest, count: number) => RequestFault | undefined) | undefined;
  #rules: Rule[] = [];
  #count = 0;

  /** Sets a fault for the next `times` requests that match. Returns how to take it off again. */
  on(match: RequestMatch, fault: RequestFault, times = 1): () => void {
    const rule = { match, fault, left: times };
    this.#rules.push(rule);
    return () => {
      this.#rules = this.#rules.filter((other) => other !== rule);
    };
  }

  clear(): void {
    this.#rules = [];
    this.each = undefined;
  }

  /** The fault for this request, if any; uses up one of its times. */
  take(request: SimRequest): RequestFault | undefined {
    this.#count += 1;
    const fault = this.each?.(request, this.#count);
    if (fault) return fault;
    const rule = this.#rules.find(({ match, left }) => left > 0 && matches(match, request));
    if (!rule) return undefined;
    rule.left -= 1;
    return rule.fault;
  }
}

/** Whether a request is one of those that `match` means. */
export function matches(match: RequestMatch, request: { method: string; path: string }): boolean {
  if (match.method !== undefined && match.method !== request.method) return false;
  if (match.path === undefined) return true;
  return typeof match.path === 'string' ? match.path === request.path : match.path.test(request.path);
}
