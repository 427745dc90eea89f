import type { IncusClient } from '../incus/client.ts';
import type { Network, NetworkAcl, Profile, Resources, StoragePool } from '../incus/schemas.ts';

/** What a host answered, or why it did not. */
export type Told<T> = { told: T } | { untold: string };

/**
 * What a host is, beside its instances: asked for when it is connected, and again whenever everything is listed. It
 * depends on nothing that an IncusHost says, so that a change there needs no new question.
 */
export interface HostFacts {
  pools: Told<readonly StoragePool[]>;
  /** Bytes of each pool that says so, by name. */
  poolBytes: Readonly<Record<string, number>>;
  /** CPUs and memory of the machine. */
  machine: Told<Resources>;
  /** Of the project. */
  profiles: Told<readonly Profile[]>;
  networks: Told<readonly Network[]>;
  acls: Told<readonly NetworkAcl[]>;
}

/** Asks a host what it is. Never rejects: what it does not answer is not known. */
export async function askFacts(
  client: Pick<
    IncusClient,
    'storagePools' | 'poolBytes' | 'resources' | 'profiles' | 'networks' | 'networkAcls'
  >,
): Promise<HostFacts> {
  const pools = told(client.storagePools());
  const [poolBytes, machine, profiles, networks, acls] = await Promise.all([
    pools.then((list) => bytesOfEach(client, list)),
    told(client.resources()),
    told(client.profiles()),
    told(client.networks()),
    told(client.networkAcls()),
  ]);
  return { pools: await pools, poolBytes, machine, profiles, networks, acls };
}

async function bytesOfEach(
  client: Pick<IncusClient, 'poolBytes'>,
  pools: Told<readonly StoragePool[]>,
): Promise<Record<string, number>> {
  const names = 'told' in pools ? pools.told.map(({ name }) => name) : [];
  const answers = await Promise.all(names.map((name) => told(client.poolBytes(name))));
  return Object.fromEntries(
    answers.flatMap((answer, index) => ('told' in answer ? [[names[index] ?? '', answer.told]] : [])),
  );
}

async function told<T>(answer: Promise<T>): Promise<Told<T>> {
  try {
    return { told: await answer };
  } catch (error) {
    return { untold: error instanceof Error ? error.message : String(error) };
  }
}
