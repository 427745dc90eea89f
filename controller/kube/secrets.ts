import { hasReason } from './api-error.ts';
import type { KubeClient } from './client.ts';
import { secrets } from './resources.ts';

/**
 * The value of one key of a Secret, as the bytes it is; undefined if there is none. A Secret that we may not read is an error that says
 * what to grant.
 */
export async function readSecret(
  client: KubeClient,
  namespace: string,
  name: string,
  key: string,
): Promise<Buffer | undefined> {
  try {
    const secret = await client.get(secrets, { namespace, name });
    const value = secret.data?.[key];
    return value === undefined ? undefined : Buffer.from(value, 'base64');
  } catch (error) {
    if (hasReason(error, 'NotFound')) return undefined;
    if (hasReason(error, 'Forbidden')) {
      throw new Error(
        `the controller may not read Secret ${namespace}/${name}: bind it the ClusterRole cijob-secret-reader in that namespace`,
        { cause: error },
      );
    }
    throw error;
  }
}
