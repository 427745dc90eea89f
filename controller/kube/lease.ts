import * as z from 'zod';
import { sleep, type Clock } from '../clock.ts';
import { hasReason } from './api-error.ts';
import type { KubeClient } from './client.ts';
import { microTime } from './micro-time.ts';
import type { Resource } from './resource.ts';

export interface LeaderElectionOptions {
  client: KubeClient;
  clock: Clock;
  /** The Lease that is fought for. */
  lease: { namespace: string; name: string };
  /** Who we are: unique among all candidates, and new in each process. */
  identity: string;
  /** Called once when the lease was held and is not any more, other than by {@link LeaderElection.release}: exit. */
  onLost: (reason: string) => void;
  /** Hears of failed requests; the election goes on. */
  onError: (error: unknown) => void;
  /** Uniform in [0, 1); Math.random by default. */
  random?: () => number;
  times?: ElectionTimes;
}

/** In milliseconds: `renew` < `lease`, with room for clocks that do not run equally fast. */
export interface ElectionTimes {
  /** How long others wait after the last renewal they saw. */
  lease: number;
  /** How long a leader tries to renew before it gives up. */
  renewDeadline: number;
  retry: number;
}

/** Those of client-go, kube-scheduler and controller-runtime. */
const defaultTimes: ElectionTimes = { lease: 15_000, renewDeadline: 10_000, retry: 2_000 };
const retryJitter = 1.2;

const LeaseSpec = z.object({
  holderIdentity: z.string().nullish(),
  leaseDurationSeconds: z.int().nullish(),
  acquireTime: z.string().nullish(),
  renewTime: z.string().nullish(),
  leaseTransitions: z.int().nullish(),
});
const Lease = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string(), resourceVersion: z.string() }),
  spec: LeaseSpec.default({}),
});
type Lease = z.infer<typeof Lease>;

export const leases: Resource<Lease> = {
  group: 'coordination.k8s.io',
  version: 'v1',
  plural: 'leases',
  schema: Lease,
};

/**
 * Leader election as client-go does it
 * (https://pkg.go.dev/k8s.io/client-go/tools/leaderelection). Other candidates' clocks are never believed: a lease has
 * run out when its record has not changed for its duration by our own clock. It is no fence: for a moment, a leader
 * that was frozen and its successor may both act, so what they do has to be safe for two.
 */
export class LeaderElection {
  readonly #options: LeaderElectionOptions;
  readonly #times: ElectionTimes;
  readonly #random: () => number;
  readonly #ended = new AbortController();
  /** The record as last seen, and since when, by our clock, it has looked like that. */
  #observed: { lease: Lease; since: number } | undefined;
  #renewedAt: number | undefined;
  #cancelDeadline: () => void = () => undefined;
  #renewing: Promise<void> = Promise.resolve();

  constructor(options: LeaderElectionOptions) {
    this.#options = options;
    this.#times = options.times ?? defaultTimes;
    this.#random = options.random ?? Math.random;
  }

  /** Whether we hold the lease, as far as one can know. */
  get leading(): boolean {
    const { clock } = this.#options;
    return this.#renewedAt !== undefined && clock.now() - this.#renewedAt < this.#times.renewDeadline;
  }

  /** Resolves once we lead, and keeps renewing from then on. Rejects with the signal's reason when it is aborted. */
  async acquire(signal: AbortSignal): Promise<void> {
    const { clock, onError } = this.#options;
    for (;;) {
      const startedAt = clock.now();
      try {
        if (await this.#attempt(signal)) {
          this.#hold(startedAt);
          this.#renewing = this.#renew();
          return;
        }
      } catch (error) {
        signal.throwIfAborted();
        onError(error);
      }
      await sleep(clock, this.#times.retry * (1 + retryJitter * this.#random()), signal);
    }
  }

  /** Gives the lease back, if we hold it, so that a successor need not wait. Never throws. */
  async release(): Promise<void> {
    const { client, clock, lease, identity, onError } = this.#options;
    const held = this.#renewedAt !== undefined;
    this.#end();
    await this.#renewing;
    if (!held) return;
    const timeoutMs = this.#times.renewDeadline / 2;
    try {
      // Read anew: the reply to our last renewal may have been lost.
      const { metadata, spec } = await client.get(leases, lease, { timeoutMs });
      if (spec.holderIdentity !== identity) return;
      const now = microTime(clock.now());
      const released = {
        leaseDurationSeconds: 1,
        leaseTransitions: spec.leaseTransitions ?? 0,
        acquireTime: now,
        renewTime: now,
      };
      await client.replace(leases, lease, body({ metadata, spec: released }), { timeoutMs });
    } catch (error) {
      onError(error);
    }
  }

  async #renew(): Promise<void> {
    const { clock, onError } = this.#options;
    const { signal } = this.#ended;
    for (;;) {
      try {
        await sleep(clock, this.#times.retry, signal);
        const startedAt = clock.now();
        const renewed = await this.#attempt(signal);
        if (this.#stopped()) return;
        if (renewed) this.#hold(startedAt);
        else if (!this.#isOurs()) {
          this.#lose(`${this.#observed?.lease.spec.holderIdentity ?? 'nobody'} holds the lease`);
        }
      } catch (error) {
        if (this.#stopped()) return;
        onError(error);
      }
    }
  }

  /** One try to take or keep the lease. False when somebody else has it, or was quicker. */
  async #attempt(signal: AbortSignal): Promise<boolean> {
    const { client, clock, lease } = this.#options;
    const call = { signal, timeoutMs: this.#times.renewDeadline / 2 };
    try {
      // A leader knows the record, and renews it in one request.
      if (this.#observed && this.#isOurs()) return await this.#write(this.#observed.lease, call);
    } catch (error) {
      if (!hasReason(error, 'Conflict') && !hasReason(error, 'NotFound')) throw error;
    }
    try {
      this.#observe(await client.get(leases, lease, call));
    } catch (error) {
      if (!hasReason(error, 'NotFound')) throw error;
      this.#observed = undefined;
    }
    const seen = this.#observed;
    const { holderIdentity, leaseDurationSeconds } = seen?.lease.spec ?? {};
    const validUntil = (seen?.since ?? 0) + (leaseDurationSeconds ?? 0) * 1000;
    if (holderIdentity && !this.#isOurs() && clock.now() < validUntil) return false;
    try {
      return await this.#write(seen?.lease, call);
    } catch (error) {
      if (hasReason(error, 'Conflict') || hasReason(error, 'AlreadyExists')) return false;
      throw error;
    }
  }

  /** Writes our name into the record, guarded by its version, or makes the record. */
  async #write(before: Lease | undefined, call: { signal: AbortSignal; timeoutMs: number }): Promise<true> {
    const { client, clock, lease, identity } = this.#options;
    const now = microTime(clock.now());
    const ours = before?.spec.holderIdentity === identity;
    const spec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.#times.lease / 1000),
      acquireTime: ours ? (before.spec.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions: before ? (before.spec.leaseTransitions ?? 0) + (ours ? 0 : 1) : 0,
    };
    const written = before
      ? await client.replace(leases, lease, body({ metadata: before.metadata, spec }), call)
      : await client.create(leases, lease.namespace, body({ metadata: lease, spec }), call);
    this.#observe(written);
    return true;
  }

  #observe(lease: Lease): void {
    const same = JSON.stringify(this.#observed?.lease.spec) === JSON.stringify(lease.spec);
    const since = same && this.#observed ? this.#observed.since : this.#options.clock.now();
    this.#observed = { lease, since };
  }

  #isOurs(): boolean {
    return this.#observed?.lease.spec.holderIdentity === this.#options.identity;
  }

  /** @param since Start of the request that renewed: when it arrived, nobody knows. */
  #hold(since: number): void {
    const { clock } = this.#options;
    this.#renewedAt = since;
    this.#cancelDeadline();
    // A timer of its own: whatever a renewal hangs in, the deadline counts.
    this.#cancelDeadline = clock.after(since + this.#times.renewDeadline - clock.now(), () =>
      this.#lose(`not renewed within ${this.#times.renewDeadline} ms`),
    );
  }

  #lose(reason: string): void {
    if (this.#stopped()) return;
    this.#end();
    this.#options.onLost(reason);
  }

  #end(): void {
    this.#renewedAt = undefined;
    this.#cancelDeadline();
    this.#ended.abort();
  }

  #stopped(): boolean {
    return this.#ended.signal.aborted;
  }
}

function body(lease: { metadata: object; spec: object }): object {
  return { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', ...lease };
}
