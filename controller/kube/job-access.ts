import type { IncomingMessage } from 'node:http';
import { group, version } from '../api/meta.ts';
import type { Clock } from '../clock.ts';
import type { AccessReview, UserInfo } from './access-review.ts';
import { tokenOf } from './bearer-token.ts';
import { Refusal, unauthorized } from './refusal.ts';
import { TokenBuckets } from './token-buckets.ts';

/**
 * Tokens that the cluster does not know, from one address: each costs the API server a request. Those that it knows
 * cost nothing here.
 */
const unknownTokens = { burst: 20, intervalMs: 1_000 };
/** Addresses remembered. */
const mostAddresses = 4096;

/** Who asked for something of a CiJob, and may have it. */
export interface Granted {
  username: string;
  /** Asks the cluster anew: rights are taken away. Rejects as {@link JobAccess.grant} does. */
  again: () => Promise<void>;
}

/** Asks the cluster who sent a request, and whether RBAC lets them have what they ask of a CiJob. */
export class JobAccess {
  readonly #review: AccessReview;
  readonly #strangers: TokenBuckets;

  constructor(review: AccessReview, clock: Clock) {
    this.#review = review;
    this.#strangers = new TokenBuckets(clock, unknownTokens, mostAddresses);
  }

  /**
   * @throws Refusal when they may not, or their address has sent too many tokens that the cluster does not know;
   *   ApiError when the cluster cannot be asked.
   */
  async grant(
    request: IncomingMessage,
    { namespace, name }: { namespace: string; name: string },
    { verb, subresource }: { verb: string; subresource: string },
  ): Promise<Granted> {
    const token = tokenOf(request);
    const what = { group, version, resource: 'cijobs', subresource, verb, namespace, name };
    const check = async (user: UserInfo) => {
      if (await this.#review.isAllowed(user, what)) return;
      throw new Refusal(
        403,
        'Forbidden',
        `cijobs.${group} "${name}" is forbidden: User "${user.username}" cannot ${verb} resource "cijobs/${subresource}" in API group "${group}" in the namespace "${namespace}"`,
      );
    };
    const user = await this.#userOf(token, request.socket.remoteAddress ?? '');
    await check(user);
    return {
      username: user.username,
      again: async () => check(known(await this.#review.userOf(token))),
    };
  }

  async #userOf(token: string, address: string): Promise<UserInfo> {
    let asked = false as boolean;
    const user = await this.#review.userOf(token, () => {
      if (!this.#strangers.take(address)) {
        throw new Refusal(429, 'TooManyRequests', 'too many unknown tokens from this address', {
          'Retry-After': '5',
        });
      }
      asked = true;
    });
    if (user && asked) this.#strangers.giveBack(address);
    return known(user);
  }
}

function known(user: UserInfo | undefined): UserInfo {
  if (!user) throw unauthorized('the cluster does not know this token');
  return user;
}
