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

/**
 * Asks the cluster who somebody is and what they may do, so that its RBAC decides. Both throw an ApiError
 * when the cluster cannot be asked.
 */
export class AccessReview {
  readonly #client: KubeClient;
  readonly #users: Kept<UserInfo | undefined>;
  readonly #decisions: Kept<boolean>;

  constructor(client: KubeClient, clock: Clock) {
    this.#client = client;
    this.#users = new Kept(clock);
    this.#decisions = new Kept(clock);
  }

  /**
   * Whose token it is; undefined when it is nobody's.
   *
   * @param asking called when no answer is known and the cluster is about to be asked; what it throws is the answer.
   */
  userOf(token: string, asking: () => void = () => undefined): Promise<UserInfo | undefined> {
    // Only its hash is kept: a dump of our memory should hold no more tokens than it must.
    return this.#users.get(createHash('sha256').update(token).digest('base64'), async () => {
      asking();
      const { status } = await this.#client.create(tokenReviews, undefined, {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        spec: { token },
      });
      return status.authenticated ? status.user : undefined;
    });
  }

  isAllowed(user: UserInfo, resourceAttributes: ResourceAttributes): Promise<boolean> {
    return this.#decisions.get(JSON.stringify([user, resourceAttributes]), async () => {
      const { username, uid, groups, extra } = user;
      const { status } = await this.#client.create(subjectAccessReviews, undefined, {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: { user: username, uid, groups, extra, resourceAttributes },
      });
      return status.allowed;
    });
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
