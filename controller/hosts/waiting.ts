import { byAge, byRank, compareText, type Ask, type Demand } from './admission.ts';
import { OrderedSet } from './ordered-set.ts';

/** A job in the queue. */
export interface Waiting {
  demand: Demand;
  /** The instance that it wants the slot for. */
  instance: string;
}

/** Different asks of one namespace that are looked at when a slot is free; what costs time is bounded by it. */
const looked = 256;

/** Jobs of one namespace that ask for the same: none fits where the first does not. */
export class Group implements Iterable<Waiting> {
  readonly #jobs = new OrderedSet<Waiting>((a, b) => byRank(a.demand, b.demand));
  readonly #ages = new OrderedSet<Waiting>((a, b) => byAge(a.demand, b.demand));

  /** The first in rank. */
  get first(): Waiting | undefined {
    return this.#jobs.first;
  }

  get oldest(): Waiting | undefined {
    return this.#ages.first;
  }

  [Symbol.iterator](): Iterator<Waiting> {
    return this.#jobs[Symbol.iterator]();
  }

  add(one: Waiting): void {
    this.#jobs.add(one);
    this.#ages.add(one);
  }

  delete(one: Waiting): void {
    this.#jobs.delete(one);
    this.#ages.delete(one);
  }
}

/** A group, by the job of it that comes first. */
interface Head {
  first: Waiting;
  group: Group;
}

/** The jobs of one namespace that wait. */
export class Line {
  readonly namespace: string;
  readonly #jobs = new OrderedSet<Waiting>((a, b) => byRank(a.demand, b.demand));
  readonly #groups = new Map<string, Group>();
  readonly #heads = new OrderedSet<Head>((a, b) => byRank(a.first.demand, b.first.demand));

  constructor(namespace: string) {
    this.namespace = namespace;
  }

  get size(): number {
    return this.#jobs.size;
  }

  /** How many jobs of the namespace come before this one. */
  countBefore(one: Waiting): number {
    return this.#jobs.countBefore(one);
  }

  at(place: number): Waiting | undefined {
    return this.#jobs.at(place);
  }

  /** The groups of jobs, in the order of the first of each. Of very many groups, the later ones have to wait. */
  *groups(): Generator<Group, undefined> {
    let count = 0;
    for (const { group } of this.#heads) {
      if (count === looked) return;
      count += 1;
      yield group;
    }
  }

  add(one: Waiting): void {
    this.#change(one, (group) => group.add(one));
    this.#jobs.add(one);
  }

  delete(one: Waiting): void {
    this.#change(one, (group) => group.delete(one));
    this.#jobs.delete(one);
  }

  /** Changes the group of a job, which keeps its place among the groups by its first job. */
  #change({ demand }: Waiting, change: (group: Group) => void): void {
    const asked = inWords(demand);
    const group = this.#groups.get(asked) ?? new Group();
    const before = group.first;
    if (before) this.#heads.delete({ first: before, group });
    change(group);
    const after = group.first;
    if (after) this.#heads.add({ first: after, group });
    if (after) this.#groups.set(asked, group);
    else this.#groups.delete(asked);
  }
}

/** All jobs that wait for a slot: by namespace, and in each by rank. */
export class WaitingJobs {
  readonly #byKey = new Map<string, Waiting>();
  readonly #lines = new Map<string, Line>();

  get size(): number {
    return this.#byKey.size;
  }

  keys(): IterableIterator<string> {
    return this.#byKey.keys();
  }

  lines(): IterableIterator<Line> {
    return this.#lines.values();
  }

  line(namespace: string): Line | undefined {
    return this.#lines.get(namespace);
  }

  /** Adds a job, or takes up what it asks by now. Returns its entry. */
  put(demand: Demand, instance: string): Waiting {
    const known = this.#byKey.get(demand.key);
    if (known?.instance === instance && isSame(known.demand, demand)) return known;
    this.delete(demand.key);
    const one = { demand, instance };
    const line = this.#lines.get(demand.namespace) ?? new Line(demand.namespace);
    this.#lines.set(demand.namespace, line);
    line.add(one);
    this.#byKey.set(demand.key, one);
    return one;
  }

  delete(key: string): void {
    const one = this.#byKey.get(key);
    if (!one) return;
    this.#byKey.delete(key);
    const line = this.#lines.get(one.demand.namespace);
    line?.delete(one);
    if (line?.size === 0) this.#lines.delete(line.namespace);
  }

  /**
   * The place of a job, from 1, in the order in which the queue is served if slots become free one at a time, nothing
   * else changes, and every job fits: the next slot goes to the namespace that has the least.
   *
   * @param shareOf What a namespace has, in slots.
   */
  placeOf(one: Waiting, shareOf: (namespace: string) => number): number {
    const { namespace } = one.demand;
    const own = this.#lines.get(namespace)?.countBefore(one) ?? 0;
    const turn = shareOf(namespace) + own;
    let place = own + 1;
    for (const line of this.#lines.values()) {
      if (line.namespace !== namespace) place += servedBefore(line, shareOf(line.namespace), one, turn);
    }
    return place;
  }
}

/** How many jobs of another namespace are served before a job whose own namespace has `turn` slots by then. */
function servedBefore(line: Line, share: number, one: Waiting, turn: number): number {
  const before = Math.min(line.size, Math.max(0, Math.ceil(turn - share)));
  const rival = share + before === turn ? line.at(before) : undefined;
  return before + Number(rival !== undefined && byAge(rival.demand, one.demand) < 0);
}

function isSame(a: Demand, b: Demand): boolean {
  return a.priority === b.priority && a.createdAt === b.createdAt && inWords(a) === inWords(b);
}

function inWords(ask: Ask): string {
  const { namespace, namespaceLabels, hostLabels, type, cpu, memoryBytes, rootDiskBytes, avoid } = ask;
  return JSON.stringify([
    [namespace, type, cpu, memoryBytes, rootDiskBytes, ...avoid],
    sorted(namespaceLabels),
    sorted(hostLabels),
  ]);
}

function sorted(labels: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(labels).sort(([a], [b]) => compareText(a, b));
}
