/** Who asks for a place: a member of a group. Here a guest, and the namespace of its job. */
export interface Owner {
  group: string;
  member: string;
}

/** How many places there are, and how many of them one group and one member may have at once. */
export interface Shares {
  all: number;
  group: number;
  member: number;
}

/** Half for a group, a quarter for a member, and never less than one place. */
export function sharesOf(all: number): Shares {
  return { all, group: Math.max(1, Math.ceil(all / 2)), member: Math.max(1, Math.ceil(all / 4)) };
}

/**
 * Which of those who wait is next: of those that may have one more place, the first of the group that has the fewest.
 * Undefined when nobody may.
 */
export function nextInTurn<T extends Owner>(
  waiting: Iterable<T>,
  running: Iterable<Owner>,
  shares: Shares,
): T | undefined {
  const { groups, members, total } = countOf(running);
  if (total >= shares.all) return undefined;
  let next: T | undefined;
  let fewest = shares.group;
  for (const one of waiting) {
    const held = groups.get(one.group) ?? 0;
    if (held >= fewest || (members.get(one.member) ?? 0) >= shares.member) continue;
    next = one;
    fewest = held;
    if (held === 0) break;
  }
  return next;
}

function countOf(running: Iterable<Owner>) {
  const groups = new Map<string, number>();
  const members = new Map<string, number>();
  let total = 0;
  for (const { group, member } of running) {
    total += 1;
    groups.set(group, (groups.get(group) ?? 0) + 1);
    members.set(member, (members.get(member) ?? 0) + 1);
  }
  return { groups, members, total };
}

interface Waiting extends Owner {
  begin: () => void;
}

/** Lets so many tasks run at once, and shares the places among those who ask for them. */
export class FairQueue {
  readonly #shares: Shares;
  readonly #waiting = new Set<Waiting>();
  readonly #running = new Set<Owner>();

  constructor(shares: Shares) {
    this.#shares = shares;
  }

  /**
   * Runs a task when it is its turn, and returns what it returns.
   *
   * @param signal takes it out of the queue: rejects with the signal's reason. A task that runs is not stopped.
   */
  add<T>(owner: Owner, task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
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
      const waiting: Waiting = { ...owner, begin };
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
