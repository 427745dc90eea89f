import { group, version } from '../api/meta.ts';
import type { AccessReview, UserInfo } from './access-review.ts';
import { Refusal, unauthorized } from './refusal.ts';

/**
 * Asks the cluster who has the token, and whether RBAC lets them use a subresource of a CiJob.
 *
 * @throws Refusal when they may not; ApiError when the cluster cannot be asked.
 */
export async function authorizeFor(
  review: AccessReview,
  token: string,
  { namespace, name }: { namespace: string; name: string },
  { verb, subresource }: { verb: string; subresource: string },
): Promise<UserInfo> {
  const user = await review.userOf(token);
  if (!user) throw unauthorized('the cluster does not know this token');
  const what = { group, version, resource: 'cijobs', subresource, verb, namespace, name };
  if (!(await review.isAllowed(user, what))) {
    throw new Refusal(
      403,
      'Forbidden',
      `cijobs.${group} "${name}" is forbidden: User "${user.username}" cannot ${verb} resource "cijobs/${subresource}" in API group "${group}" in the namespace "${namespace}"`,
    );
  }
  return user;
}
