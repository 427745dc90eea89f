/** Who asks for a place: a member of a group. Here a guest, and the namespace of its job. */
export interface Owner {
  group: string;
  member: string;
}

/** What somebody wants a place for. */
export interface Turn extends Owner {
  /** It may take minutes, as a file of any size does. Left out: it is over soon. */
  long?: boolean;
}

/** How many places there are, and who may have how many at once. */
export interface Shares {
  all: number;
  /** How many of them a group, and a member, may have for what takes long. */
  group: number;
  member: number;
  /** How many are kept for what is short, and is of a group that has no more than its share. */
  short: number;
}

/** Half for a group, a quarter for a member, and never less than one place. */
export function sharesOf(all: number, short = 0): Shares {
  return { all, group: Math.max(1, Math.ceil(all / 2)), member: Math.max(1, Math.ceil(all / 4)), short };
}

/**
 * Which of those who wait is next: of those that may have one more place, the first of the group that has the fewest.
 * Undefined when nobody may. What is short may have any place that nobody with fewer waits for; what is long never more
 * than its share, whoever waits, as it would keep it for minutes from those that come next.
 */
export function nextInTurn<T extends Turn>(
  waiting: Iterable<T>,
  running: Iterable<Turn>,
  shares: Shares,
): T | undefined {
  const held = countOf(running);
  if (held.total >= shares.all) return undefined;
  let next: T | undefined;
  let fewest = Number.POSITIVE_INFINITY;
  for (const one of waiting) {
    const has = held.groups.get(one.group) ?? 0;
    if (has >= fewest || !mayHaveOneMore(one, held, shares)) continue;
    next = one;
    fewest = has;
    if (has === 0) break;
  }
  return next;
}

type Held = ReturnType<typeof countOf>;

function mayHaveOneMore({ group, member, long }: Turn, held: Held, shares: Shares): boolean {
  const modest = !long && (held.groups.get(group) ?? 0) < shares.group;
  if (held.total >= shares.all - (modest ? 0 : shares.short)) return false;
  if (!long) return true;
  return (
    (held.longOfGroups.get(group) ?? 0) < shares.group &&
    (held.longOfMembers.get(member) ?? 0) < shares.member
  );
}

function countOf(running: Iterable<Turn>) {
  const groups = new Map<string, number>();
  const longOfGroups = new Map<string, number>();
  const longOfMembers = new Map<string, number>();
  let total = 0;
  for (const { group, member, long } of running) {
    total += 1;
    count(groups, group);
    if (!long) continue;
    count(longOfGroups, group);
    count(longOfMembers, member);
  }
  return { groups, longOfGroups, longOfMembers, total };
}

function count(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

interface Waiting extends Turn {
  begin: () => void;
}

/** Lets so many tasks run at once, and shares the places among those who ask for them. */
export class FairQueue {
  readonly #shares: Shares;
  readonly #waiting = new Set<Waiting>();
  readonly #running = new Set<Turn>();

  constructor(shares: Shares) {
    this.#shares = shares;
  }

  /**
   * Runs a task when it is its turn, and returns what it returns.
   *
   * @param signal takes it out of the queue: rejects with the signal's reason. A task that runs is not stopped.
   */
  add<T>(turn: Turn, task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const leave = () => {
        this.#waiting.delete(waiting);
        reject(signal?.reason as Error);
      };
      const begin = () => {
        signal?.removeEventListener('abort', leave);
        this.#waiting.delete(waiting);
        this.#running.add(waiting);
        const ended = task().finally(() => {
          this.#running.delete(waiting);
          this.#fill();
        });
        ended.then(resolve, reject);
      };
      const waiting: Waiting = { ...turn, begin };
      signal?.addEventListener('abort', leave, { once: true });
      this.#waiting.add(waiting);
      this.#fill();
    });
  }

  #fill(): void {
    for (;;) {
      const next = nextInTurn(this.#waiting, this.#running, this.#shares);
      if (!next) return;
      next.begin();
    }
  }
}
