/** Creations of one namespace that fail in a row before no more are tried for a while; for all, those of others beside it. */
const tolerated = 3;
/** The first pause; it doubles with every trial that fails. In milliseconds. */
const firstPause = 15_000;
const longestPause = 5 * 60_000;

/** Whether jobs are let through: as they come, none, or a single one to see whether it works again. */
export type Gate = 'open' | 'closed' | 'trial';

/** Failures in a row, and the pause after too many of them. After each pause, one job is let through as a trial. */
class Streak {
  failures = 0;
  why = '';
  #pauses = 0;
  #opensAt = 0;
  /** Instance of the trial whose creation has not ended. */
  #trial: string | undefined;

  get tripped(): boolean {
    return this.#pauses > 0;
  }

  state(now: number): Gate {
    if (!this.tripped) return 'open';
    return now < this.#opensAt ? 'closed' : 'trial';
  }

  /** Notes a failure, and pauses if that is one too many. Returns the length of the pause, or 0. */
  failed(why: string, trips: boolean, now: number, jitter: number): number {
    this.failures += 1;
    this.why = why;
    this.#trial = undefined;
    if (!this.tripped && !trips) return 0;
    this.#pauses += 1;
    return this.#pause(now, jitter);
  }

  /** Notes that a job was given as a trial: the only one until its creation has ended, or the pause is over. */
  given(instance: string, now: number, jitter: number): number {
    if (!this.tripped) return 0;
    this.#trial = instance;
    return this.#pause(now, jitter);
  }

  /** Notes that a job gave its slot back. If it was the trial and created nothing, another may be tried at once. */
  released(instance: string): void {
    if (this.#trial !== instance) return;
    this.#trial = undefined;
    this.#opensAt = 0;
  }

  #pause(now: number, jitter: number): number {
    const ceiling = Math.min(longestPause, firstPause * 2 ** (this.#pauses - 1));
    // Whole milliseconds: a timer drops the rest, and would come while the pause still lasts.
    const pause = Math.ceil(ceiling * (0.75 + jitter / 4));
    this.#opensAt = now + pause;
    return pause;
  }
}

/** Why a host is given no jobs, or none of some namespaces, although it may take some. With the words of Incus. */
export interface Refusal {
  /** Whether it is given none at all. */
  all: boolean;
  message: string;
}

/** Namespaces that a refusal names. */
const named = 5;

/**
 * Keeps jobs from a host that fails to create instances, such as one whose pool is full: a host on which everything
 * fails at once always has the most free slots. After a pause one job is let through; its creation decides.
 *
 * Whether the host or the job is to blame, a failed operation of Incus does not say. So a namespace whose creations
 * fail is kept from the host alone; the host counts as failing for all once as many of other namespaces than the one that
 * failed most have failed too, with no success in between. So no number of failures of one namespace makes those of
 * another count for more. An instance that was made and does not start is its job's own fault (its mounts, its limits),
 * and says nothing of the host. Pure: the time and the jitter are passed in, in milliseconds and from 0 to 1.
 */
export class Breaker {
  #host = new Streak();
  /** By namespace: creations that failed by what may be the host since the last that worked, of any namespace. */
  readonly #failing = new Map<string, number>();
  /** Namespaces whose own last creation failed. */
  readonly #namespaces = new Map<string, Streak>();
  /** The number of the last trial that each namespace had. */
  readonly #trials = new Map<string, number>();
  #trialsGiven = 0;

  /** Notes that a creation worked. Returns whether that opens the host to anybody. */
  succeeded(namespace: string): boolean {
    const tripped = this.#host.tripped || (this.#namespaces.get(namespace)?.tripped ?? false);
    this.#host = new Streak();
    this.#failing.clear();
    this.#trials.clear();
    this.#namespaces.delete(namespace);
    return tripped;
  }

  /**
   * Notes that one did not. Returns the milliseconds after which somebody is let through again; 0: nobody is kept out.
   *
   * @param atStart Whether the instance was made, and did not start.
   */
  failed(namespace: string, why: string, now: number, jitter: number, atStart = false): number {
    this.#failing.set(namespace, (this.#failing.get(namespace) ?? 0) + Number(!atStart));
    const own = this.#namespaces.get(namespace) ?? new Streak();
    this.#namespaces.set(namespace, own);
    const ownPause = own.failed(why, own.failures + 1 >= tolerated, now, jitter);
    if (atStart) return ownPause;
    const counts = [...this.#failing.values()];
    const besideTheWorst = counts.reduce((sum, count) => sum + count, 0) - Math.max(...counts);
    return Math.max(ownPause, this.#host.failed(why, besideTheWorst >= tolerated, now, jitter));
  }

  /** Notes that a job was given to the host, for an instance of this name. Returns the pause as {@link failed} does. */
  given(namespace: string, instance: string, now: number, jitter: number): number {
    if (this.#host.tripped) {
      this.#trialsGiven += 1;
      this.#trials.set(namespace, this.#trialsGiven);
    }
    const own = this.#namespaces.get(namespace)?.given(instance, now, jitter) ?? 0;
    return Math.max(own, this.#host.given(instance, now, jitter));
  }

  /** Notes that a slot was given back. */
  released(namespace: string, instance: string): void {
    this.#host.released(instance);
    this.#namespaces.get(namespace)?.released(instance);
  }

  /** Whether the host is given jobs of any namespace. */
  state(now: number): Gate {
    return this.#host.state(now);
  }

  /** Whether it is given jobs of one namespace, where it is given those of others. */
  stateFor(namespace: string, now: number): Gate {
    return this.#namespaces.get(namespace)?.state(now) ?? 'open';
  }

  /** Namespaces of which a single job is let through now. */
  namespacesOnTrial(now: number): string[] {
    return [...this.#namespaces].flatMap(([name, streak]) => (streak.state(now) === 'trial' ? [name] : []));
  }

  /**
   * In which order namespaces get the trials of a failing host, the lowest first: whether it failed there, then the
   * number of its last trial. What a job claims for itself, such as its priority, has no say.
   */
  turnOf(namespace: string): readonly [failed: number, last: number] {
    return [Number(this.#failing.has(namespace)), this.#trials.get(namespace) ?? 0];
  }

  /** Why jobs are kept away now; undefined if none are. */
  refusal(now: number): Refusal | undefined {
    if (this.#host.state(now) === 'closed') {
      const { failures, why } = this.#host;
      return { all: true, message: `creating instances failed ${failures} times in a row: ${why}` };
    }
    const closed = [...this.#namespaces].filter(([, streak]) => streak.state(now) === 'closed');
    if (closed.length === 0) return undefined;
    const each = closed
      .slice(0, named)
      .map(([name, { failures, why }]) => `${name}, where it failed ${failures} times in a row: ${why}`);
    const more = closed.length > named ? `; and of ${closed.length - named} more namespaces` : '';
    return {
      all: false,
      message: `no instances are created for now for jobs of namespace ${each.join('; ')}${more}`,
    };
  }
}
