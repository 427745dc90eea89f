import type { IncusClient } from '../incus/client.ts';
import type { Network, NetworkAcl, Profile, StoragePool } from '../incus/schemas.ts';

/** What a host answered, or why it did not. */
export type Told<T> = { told: T } | { untold: string };

/**
 * What a host is, beside its instances: asked for when it is connected, and again whenever everything is listed. It
 * depends on nothing that an IncusHost says, so that a change there needs no new question.
 */
export interface HostFacts {
  pools: Told<readonly StoragePool[]>;
  /** Of the project. */
  profiles: Told<readonly Profile[]>;
  networks: Told<readonly Network[]>;
  acls: Told<readonly NetworkAcl[]>;
}

/** Asks a host what it is. Never rejects: what it does not answer is not known. */
export async function askFacts(
  client: Pick<IncusClient, 'storagePools' | 'profiles' | 'networks' | 'networkAcls'>,
): Promise<HostFacts> {
  const [pools, profiles, networks, acls] = await Promise.all([
    told(client.storagePools()),
    told(client.profiles()),
    told(client.networks()),
    told(client.networkAcls()),
  ]);
  return { pools, profiles, networks, acls };
}

async function told<T>(answer: Promise<T>): Promise<Told<T>> {
  try {
    return { told: await answer };
  } catch (error) {
    return { untold: error instanceof Error ? error.message : String(error) };
  }
}
