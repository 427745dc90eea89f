import type { Clock } from '../clock.ts';
import { fit, type Demand, type Fit, type Offer } from './admission.ts';
import { Breaker, type Gate, type Refusal } from './breaker.ts';
import { Ledger, type Slot, type Usage } from './ledger.ts';
import { handOut, hasRoom, shareOf, totalOf, trialFor, type Grant } from './shares.ts';
import { WaitingJobs, type Line } from './waiting.ts';

/** Where a job stands: it has a slot, or waits for one at a place in the queue, or never gets one. */
export type Admission =
  | { kind: 'admitted'; host: string }
  | {
      kind: 'waiting';
      reason: string;
      message: string;
      /** Those that may take the job one day with the specs they have, in reach or not. */
      hosts: string[];
      position: number;
      length: number;
    }
  | { kind: 'refused'; reason: string; message: string };

/** What is known of a host beside what jobs take of it. */
export interface Candidate extends Omit<Offer, 'used' | 'refusal'> {
  /** Instances of ours there, by name. Those without a slot were left behind, and take room until they are gone. */
  instances: Iterable<string>;
}

type HostOffer = Offer & Candidate;

export interface SchedulerOptions {
  clock: Clock;
  /** Every host, as it is now. */
  hosts: () => readonly Candidate[];
  /** Has a job looked at: it has a slot now, or what it is told has changed. */
  wake: (key: string) => void;
  /** Called when a host is given jobs again, or none any more, as {@link Scheduler.refusalOf} says. */
  onRefusal: (host: string) => void;
}

/** Jobs that are woken at once when hosts change; the others find out when they next look by themselves. */
const wokenAtOnce = 100;
/** By how much a timer may come early, in milliseconds. */
const timerSlack = 10;

/**
 * Who holds which slot, and the queue of those who wait for one. Asking for a slot and giving one back each cost
 * O(log n) with n jobs in the queue, and a look at every host and at every namespace that waits.
 */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #ledger = new Ledger();
  readonly #waiting = new WaitingJobs();
  /** Jobs that were handed a slot and have not taken it up yet: no status says so. */
  readonly #admitted = new Map<string, { host: string; instance: string }>();
  /** By host. */
  readonly #breakers = new Map<string, Breaker>();
  /** What calls off the looks at hosts that are planned for the ends of pauses. */
  readonly #pauses = new Set<() => void>();

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  /** Asks for a slot. Ask again at any time: the answer is the current one. */
  admit(demand: Demand, instance: string): Admission {
    const { key } = demand;
    const before = this.#admission(key);
    if (before) return before;
    const one = this.#waiting.put(demand, instance);
    const offers = this.#offers();
    let why = fit(demand, offers);
    if (why.kind === 'never') {
      this.#waiting.delete(key);
      return { kind: 'refused', reason: why.reason, message: why.message };
    }
    if (why.kind === 'fits' || offers.some((offer) => this.#trialsDue(offer).length > 0)) {
      this.#assign(offers);
      const admitted = this.#admission(key);
      if (admitted) return admitted;
      why = fit(demand, offers);
    }
    return {
      kind: 'waiting',
      ...reasonOf(why),
      position: this.#waiting.placeOf(one, this.#shares(offers)),
      length: this.#waiting.size,
    };
  }

  /** Notes that a job holds a slot, as its status says. */
  occupy(key: string, instance: string, slot: Slot): void {
    this.#waiting.delete(key);
    this.#admitted.delete(key);
    this.#ledger.take(instance, slot);
  }

  /**
   * Takes a job out of the queue. A slot that it was handed and has not taken up goes to the next; one that it holds
   * stays until {@link release}.
   */
  withdraw(key: string): void {
    this.#waiting.delete(key);
    const admitted = this.#admitted.get(key);
    this.#admitted.delete(key);
    if (admitted) this.release(admitted.instance);
  }

  /** Gives a slot back, once its instance is gone. */
  release(instance: string): void {
    const slot = this.#ledger.get(instance);
    if (!slot) return;
    this.#ledger.release(instance);
    this.#breakers.get(slot.host)?.released(slot.namespace, instance);
    this.assign();
  }

  /** Hands out free slots to those who wait. */
  assign(): void {
    if (this.#waiting.size > 0) this.#assign(this.#offers());
  }

  /** Takes up what has changed about hosts: hands out slots, and has jobs looked at that may be told something else. */
  hostsChanged(): void {
    this.assign();
    for (const key of this.#toldOtherwise()) this.#options.wake(key);
  }

  /** Takes up that an instance came or went: one that held no slot may have taken room. */
  instanceChanged(instance: string): void {
    if (!this.#ledger.get(instance)) this.assign();
  }

  /**
   * Notes how the creation of an instance ended.
   *
   * @param atStart Whether it failed when the instance was made, and did not start.
   */
  created(host: string, namespace: string, failure: string | undefined, atStart = false): void {
    const breaker = this.#breakerOf(host);
    if (failure === undefined) {
      if (breaker.succeeded(namespace)) this.#refusalChanged(host);
      return;
    }
    const pause = breaker.failed(namespace, failure, this.#options.clock.now(), Math.random(), atStart);
    if (pause === 0) return;
    this.#refusalChanged(host);
    this.#afterPause(host, pause);
  }

  /** Why a host is given no jobs although it is connected and may take some; undefined if it is given them. */
  refusalOf(host: string): Refusal | undefined {
    return this.#breakers.get(host)?.refusal(this.#options.clock.now());
  }

  /** Forgets what was seen of a host's creations. Slots there stay taken. */
  forgetHost(host: string): void {
    this.#breakers.delete(host);
  }

  /** Waits for nothing more: a timer that is left would keep the process alive. */
  close(): void {
    for (const cancel of this.#pauses) cancel();
    this.#pauses.clear();
  }

  /** Jobs in the queue. */
  waitingKeys(): string[] {
    return [...this.#waiting.keys()];
  }

  /** Slots of one host that are taken. */
  used(host: string): number {
    const candidate = this.#options.hosts().find(({ name }) => name === host);
    return candidate ? this.#usedOn(candidate).instances : 0;
  }

  #assign(offers: readonly HostOffer[]): void {
    const grant = (given: Grant) => this.#grant(given, offers);
    for (const offer of offers) {
      for (const lines of this.#trialsDue(offer)) this.#tryOut(offer, lines, grant);
    }
    handOut(this.#waiting.lines(), offers, this.#shares(offers), grant);
  }

  /** Gives a host that failed one job of these namespaces. */
  #tryOut(offer: HostOffer, lines: Iterable<Line>, grant: (given: Grant) => void): void {
    const breaker = this.#breakerOf(offer.name);
    const open = { ...offer, refusal: (namespace: string) => this.#refusal(offer, namespace, true) };
    const job = trialFor(lines, open, (namespace) => breaker.turnOf(namespace));
    if (job) grant({ job, host: offer.name });
  }

  #grant({ job, host }: Grant, offers: readonly Offer[]): void {
    const { clock, wake } = this.#options;
    const { key, namespace, cpu, memoryBytes } = job.demand;
    const { instance } = job;
    this.#waiting.delete(key);
    this.#admitted.set(key, { host, instance });
    this.#ledger.take(instance, { host, namespace, cpu, memoryBytes });
    const offer = offers.find(({ name }) => name === host);
    if (offer) {
      offer.used.instances += 1;
      offer.used.cpu += cpu;
      offer.used.memoryBytes += memoryBytes;
    }
    const pause = this.#breakers.get(host)?.given(namespace, instance, clock.now(), Math.random()) ?? 0;
    if (pause > 0) this.#afterPause(host, pause);
    wake(key);
  }

  #admission(key: string): Admission | undefined {
    const admitted = this.#admitted.get(key);
    return admitted && { kind: 'admitted', host: admitted.host };
  }

  /** The jobs that are refused now, whatever their number, and the first of the others. */
  #toldOtherwise(): Set<string> {
    const offers = this.#offers();
    const keys = new Set<string>();
    for (const key of this.#waiting.keys()) {
      if (keys.size === wokenAtOnce) break;
      keys.add(key);
    }
    for (const group of [...this.#waiting.lines()].flatMap((line) => [...line.groups()])) {
      if (!group.first || fit(group.first.demand, offers).kind !== 'never') continue;
      for (const { demand } of group) keys.add(demand.key);
    }
    return keys;
  }

  /** Looks at a host again when a pause is over. Namespaces have pauses of their own, so that several may run. */
  #afterPause(host: string, milliseconds: number): void {
    // A timer may come a moment early by the clock that the pause is measured with.
    const cancel = this.#options.clock.after(milliseconds + timerSlack, () => {
      this.#pauses.delete(cancel);
      this.#refusalChanged(host);
    });
    this.#pauses.add(cancel);
  }

  #refusalChanged(host: string): void {
    this.#options.onRefusal(host);
    this.hostsChanged();
  }

  /** The trials that a host may be given now, each of one job: by all namespaces together, or by some on their own. */
  #trialsDue(offer: HostOffer): Iterable<Line>[] {
    const breaker = this.#breakers.get(offer.name);
    if (!breaker || offer.unschedulable !== undefined || !hasRoom(offer)) return [];
    const now = this.#options.clock.now();
    const state = breaker.state(now);
    if (state !== 'open') return state === 'trial' ? [[...this.#waiting.lines()]] : [];
    return breaker.namespacesOnTrial(now).flatMap((namespace) => {
      const line = this.#waiting.line(namespace);
      return line ? [[line]] : [];
    });
  }

  #shares(offers: readonly Offer[]): (namespace: string) => number {
    const total = totalOf(offers);
    return (namespace) => shareOf(this.#ledger.usedBy(namespace), total);
  }

  #offers(): HostOffer[] {
    return this.#options.hosts().map((candidate) => ({
      ...candidate,
      refusal: (namespace) => this.#refusal(candidate, namespace, false),
      used: this.#usedOn(candidate),
    }));
  }

  #usedOn({ name, instances }: Candidate): Usage {
    const used = { ...this.#ledger.usedOn(name) };
    for (const instance of instances) if (this.#ledger.get(instance)?.host !== name) used.instances += 1;
    return used;
  }

  /**
   * Why a host is given no jobs of a namespace. Nothing that Incus said: other tenants read this.
   *
   * @param trial Whether it is asked for a single job that tries the host out.
   */
  #refusal({ name, unschedulable }: Candidate, namespace: string, trial: boolean): string | undefined {
    if (unschedulable !== undefined) return unschedulable;
    const breaker = this.#breakers.get(name);
    const now = this.#options.clock.now();
    const lets = (gate: Gate | undefined) =>
      gate === undefined || gate === 'open' || (trial && gate === 'trial');
    if (!lets(breaker?.state(now))) {
      return 'creating instances fails there at the moment (see the IncusHost)';
    }
    return lets(breaker?.stateFor(namespace, now))
      ? undefined
      : `creating instances for jobs of namespace ${namespace} fails there at the moment (see the IncusHost)`;
  }

  #breakerOf(host: string): Breaker {
    const breaker = this.#breakers.get(host) ?? new Breaker();
    this.#breakers.set(host, breaker);
    return breaker;
  }
}

function reasonOf(why: Fit): Pick<Extract<Fit, { kind: 'waits' }>, 'reason' | 'message' | 'hosts'> {
  return why.kind === 'waits'
    ? { reason: why.reason, message: why.message, hosts: why.hosts }
    : {
        reason: 'NoFreeSlot',
        message: 'other jobs take the free slots',
        hosts: why.kind === 'fits' ? [why.host] : [],
      };
}
