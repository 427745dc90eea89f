import { byAge, compareText, roomFor, type Offer } from './admission.ts';
import type { Usage } from './ledger.ts';
import { OrderedSet } from './ordered-set.ts';
import type { Line, Waiting } from './waiting.ts';

/** A job that is given a slot. */
export interface Grant {
  job: Waiting;
  /** Name of the host. */
  host: string;
}

/**
 * What a namespace has, in slots: as many as it holds, or more if these take a larger part of the hosts' CPUs or memory
 * (its dominant share, https://www.usenix.org/conference/nsdi11/dominant-resource-fairness-fair-allocation-multiple-resource-types).
 * What any of the hosts does not count is not counted here.
 */
export function shareOf(used: Readonly<Usage>, total: Readonly<Usage>): number {
  const part = (taken: number, whole: number) => (whole > 0 ? (taken / whole) * total.instances : 0);
  return Math.max(used.instances, part(used.cpu, total.cpu), part(used.memoryBytes, total.memoryBytes));
}

/** All that there is on these hosts. */
export function totalOf(offers: readonly Offer[]): Usage {
  const sum = (part: keyof Usage) => offers.reduce((total, { capacity }) => total + capacity[part], 0);
  return { instances: sum('instances'), cpu: sum('cpu'), memoryBytes: sum('memoryBytes') };
}

export function hasRoom({ up, used, capacity }: Offer): boolean {
  return up && used.instances < capacity.instances;
}

/** A namespace that may be next. */
interface Turn {
  line: Line;
  share: number;
  first: Waiting;
}

/**
 * Hands out what is free, slot by slot: to the namespace that has the least, and of equal ones to that whose first job
 * is the oldest; in a namespace to the first job in rank that fits. So nobody gains by the number, the priority or the
 * size of what it asks for, and a job that fits nowhere now holds up no other.
 *
 * @param offers Its usage is counted up with each grant.
 * @param shareOf What a namespace has by now.
 * @param grant Takes down each grant before the next is looked for. It must count in `shareOf`, and closes the host
 * where that was the only one it was to have.
 */
export function handOut(
  lines: Iterable<Line>,
  offers: readonly Offer[],
  shareOf: (namespace: string) => number,
  grant: (grant: Grant) => void,
): void {
  const turns = new OrderedSet<Turn>(
    (a, b) =>
      a.share - b.share ||
      byAge(a.first.demand, b.first.demand) ||
      compareText(a.line.namespace, b.line.namespace),
  );
  const enter = (line: Line) => {
    const first = line.at(0);
    if (first) turns.add({ line, share: shareOf(line.namespace), first });
  };
  for (const line of lines) enter(line);
  for (let turn = turns.first; turn && offers.some(hasRoom); turn = turns.first) {
    turns.delete(turn);
    const found = firstThatFits(turn.line, offers);
    // Room only shrinks from here: what fits nowhere now does not fit later in this round either.
    if (!found) continue;
    grant(found);
    enter(turn.line);
  }
}

/** Which job tries out a host that failed: of the namespace whose turn it is the oldest that fits, whatever its rank. */
export function trialFor(
  lines: Iterable<Line>,
  offer: Offer,
  turnOf: (namespace: string) => readonly [failed: number, last: number],
): Waiting | undefined {
  const avoids = ({ demand }: Waiting) => Number(demand.avoid.includes(offer.name));
  const compare = (a: Waiting, b: Waiting) => {
    const [failedA, lastA] = turnOf(a.demand.namespace);
    const [failedB, lastB] = turnOf(b.demand.namespace);
    return avoids(a) - avoids(b) || failedA - failedB || lastA - lastB || byAge(a.demand, b.demand);
  };
  let best: Waiting | undefined;
  for (const line of lines) {
    for (const { oldest } of line.groups()) {
      if (!oldest || (best && compare(best, oldest) < 0)) continue;
      if (roomFor(oldest.demand, [offer]) !== undefined) best = oldest;
    }
  }
  return best;
}

function firstThatFits(line: Line, offers: readonly Offer[]): Grant | undefined {
  for (const { first } of line.groups()) {
    if (!first) continue;
    const host = roomFor(first.demand, offers);
    if (host !== undefined) return { job: first, host };
  }
  return undefined;
}
