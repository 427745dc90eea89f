import type { IncomingMessage } from 'node:http';
import { group, version } from '../api/meta.ts';
import type { Clock } from '../clock.ts';
import type { AccessReview, InTurn, UserInfo } from './access-review.ts';
import { tokenOf } from './bearer-token.ts';
import { clientOf } from './client-address.ts';
import { FairLine } from './fair-line.ts';
import { Refusal, unauthorized, unavailable } from './refusal.ts';
import { TokenBuckets } from './token-buckets.ts';

/**
 * Tokens never heard of: each costs the API server a request. Most floods are of these, and whether one is good shows
 * only by asking; so there is no allowance that bad ones could use up for the good, but a line.
 */
const strangersLine = { atOnce: 8, ofClient: 4, waiting: 64 };
/** What known users may do: the API server is asked about each CiJob by itself. */
const usersLine = { atOnce: 16, ofClient: 4, waiting: 64 };
/** Requests of one user. */
const requestRate = { burst: 100, intervalMs: 50 };
const mostUsers = 4096;

/** What a right is about: a verb on a subresource of `cijobs`. */
export interface Right {
  verb: string;
  subresource: string;
}

/** Somebody whom the cluster knows. */
export interface Caller {
  user: UserInfo;
  client: string;
  /** Throws when the cluster says that they may not, or, later, does not know them any more. */
  may: (right: Right, job: { namespace: string; name: string }) => Promise<void>;
}

/** Asks the cluster who sent a request, and whether RBAC lets them have what they ask of a CiJob. */
export class JobAccess {
  readonly #review: AccessReview;
  readonly #strangers = new FairLine(strangersLine);
  readonly #users = new FairLine(usersLine);
  readonly #rate: TokenBuckets;

  constructor(review: AccessReview, clock: Clock) {
    this.#review = review;
    this.#rate = new TokenBuckets(clock, requestRate, mostUsers);
  }

  /**
   * @throws Refusal when the cluster does not know them, or they ask too often; ApiError when it cannot be asked.
   */
  async callerOf(request: IncomingMessage): Promise<Caller> {
    const token = tokenOf(request);
    const client = clientOf(request);
    const inTurn: InTurn = (work) =>
      this.#strangers.run(client, () => {
        if (request.socket.destroyed) throw unavailable('the one who asked has gone');
        return work();
      });
    const user = known(await this.#review.userOf(token, inTurn));
    if (!this.#rate.take(user.username)) {
      throw new Refusal(429, 'TooManyRequests', `too many requests of user "${user.username}"`, {
        'Retry-After': '5',
      });
    }
    const may: Caller['may'] = async (right, job) =>
      this.#check(known(await this.#review.userOf(token)), right, job);
    return { user, client, may };
  }

  async #check(
    user: UserInfo,
    { verb, subresource }: Right,
    { namespace, name }: { namespace: string; name: string },
  ): Promise<void> {
    const what = { group, version, resource: 'cijobs', subresource, verb, namespace, name };
    const inTurn: InTurn = (work) => this.#users.run(user.username, work);
    if (await this.#review.isAllowed(user, what, inTurn)) return;
    throw new Refusal(
      403,
      'Forbidden',
      `cijobs.${group} "${name}" is forbidden: User "${user.username}" cannot ${verb} resource "cijobs/${subresource}" in API group "${group}" in the namespace "${namespace}"`,
    );
  }
}

function known(user: UserInfo | undefined): UserInfo {
  if (!user) throw unauthorized('the cluster does not know this token');
  return user;
}
