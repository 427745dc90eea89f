import { createHash } from 'node:crypto';
import * as z from 'zod';
import type { Clock } from '../clock.ts';
import type { KubeClient } from './client.ts';
import type { Resource } from './resource.ts';

/** Somebody as the cluster knows them: `status.user` of a TokenReview. */
const UserInfo = z.object({
  username: z.string(),
  uid: z.string().optional(),
  groups: z.array(z.string()).optional(),
  extra: z.record(z.string(), z.array(z.string())).optional(),
});
export type UserInfo = z.infer<typeof UserInfo>;

/** https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/ */
const TokenReview = z.object({
  status: z.object({ authenticated: z.boolean().default(false), user: UserInfo.optional() }),
});
const tokenReviews: Resource<z.infer<typeof TokenReview>> = {
  group: 'authentication.k8s.io',
  version: 'v1',
  plural: 'tokenreviews',
  schema: TokenReview,
};

/** https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/ */
const SubjectAccessReview = z.object({
  status: z.object({ allowed: z.boolean().default(false), reason: z.string().max(1024).optional() }),
});
const subjectAccessReviews: Resource<z.infer<typeof SubjectAccessReview>> = {
  group: 'authorization.k8s.io',
  version: 'v1',
  plural: 'subjectaccessreviews',
  schema: SubjectAccessReview,
};

/** What somebody wants to do, in RBAC's words. */
export interface ResourceAttributes {
  verb: string;
  group: string;
  version: string;
  resource: string;
  subresource: string;
  namespace: string;
  name: string;
}

/** How long an answer of the cluster is believed, in milliseconds: a right taken away is gone as soon. */
export const believedFor = 5_000;
/** Answers kept at once. */
const maxKept = 1024;
/** Tokens that were somebody's within so many milliseconds are asked about at once, before those never heard of. */
const knownFor = 10 * 60_000;
const maxKnown = 4096;
/** How long an API server may think, in milliseconds, before the one who asks us is sent away for the moment. */
const patience = { timeoutMs: 5_000 };

/** Does work at once, or when its turn has come. */
export type InTurn = <T>(work: () => Promise<T>) => Promise<T>;

const atOnce: InTurn = (work) => work();

/**
 * Asks the cluster who somebody is and what they may do, so that its RBAC decides. Both throw an ApiError
 * when the cluster cannot be asked.
 */
export class AccessReview {
  readonly #client: KubeClient;
  readonly #users: Kept<UserInfo | undefined>;
  readonly #decisions: Kept<boolean>;
  /** By the hash of a token: until when it counts as known. */
  readonly #known = new Map<string, number>();
  readonly #clock: Clock;

  constructor(client: KubeClient, clock: Clock) {
    this.#client = client;
    this.#clock = clock;
    this.#users = new Kept(clock);
    this.#decisions = new Kept(clock);
  }

  /**
   * Whose token it is; undefined when it is nobody's.
   *
   * @param inTurn when the cluster is asked about a token that was not known lately. It may throw, which is the answer.
   */
  userOf(token: string, inTurn: InTurn = atOnce): Promise<UserInfo | undefined> {
    // Only its hash is kept: a dump of our memory should hold no more tokens than it must.
    const hash = createHash('sha256').update(token).digest('base64');
    return this.#users.get(hash, async () => {
      const isKnown = this.#clock.now() < (this.#known.get(hash) ?? 0);
      const user = await (isKnown ? atOnce : inTurn)(() => this.#review(token));
      this.#remember(hash, user !== undefined);
      return user;
    });
  }

  async #review(token: string): Promise<UserInfo | undefined> {
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } };
    const { status } = await this.#client.create(tokenReviews, undefined, review, patience);
    return status.authenticated ? status.user : undefined;
  }

  #remember(hash: string, isSomebodys: boolean): void {
    this.#known.delete(hash);
    if (isSomebodys) this.#known.set(hash, this.#clock.now() + knownFor);
    const [oldest] = this.#known.keys();
    if (this.#known.size > maxKnown && oldest !== undefined) this.#known.delete(oldest);
  }

  /** @param inTurn when the cluster is asked, if no answer is known. */
  isAllowed(
    user: UserInfo,
    resourceAttributes: ResourceAttributes,
    inTurn: InTurn = atOnce,
  ): Promise<boolean> {
    return this.#decisions.get(JSON.stringify([user, resourceAttributes]), () =>
      inTurn(async () => {
        const { username, uid, groups, extra } = user;
        const review = {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SubjectAccessReview',
          spec: { user: username, uid, groups, extra, resourceAttributes },
        };
        const { status } = await this.#client.create(subjectAccessReviews, undefined, review, patience);
        return status.allowed;
      }),
    );
  }
}

/** Answers that are believed for a while. Those who ask the same at once wait for one answer. */
class Kept<T> {
  readonly #clock: Clock;
  readonly #answers = new Map<string, { until: number; answer: Promise<T> }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get(question: string, ask: () => Promise<T>): Promise<T> {
    const now = this.#clock.now();
    const known = this.#answers.get(question);
    if (known && now < known.until) return known.answer;
    this.#answers.delete(question);
    if (this.#answers.size >= maxKept) this.#dropOld(now);
    const answer = ask();
    this.#answers.set(question, { until: now + believedFor, answer });
    // No answer is none to believe.
    answer.catch(() => this.#answers.delete(question));
    return answer;
  }

  #dropOld(now: number): void {
    // They were put in by the order of their ends.
    for (const [question, { until }] of this.#answers) {
      if (until > now && this.#answers.size < maxKept) return;
      this.#answers.delete(question);
    }
  }
}
