import type { KubeConfig } from '@kubernetes/client-node';
import * as z from 'zod';
import type { CiJob } from '../api/cijob.ts';
import { systemClock } from '../clock.ts';
import { hasReason } from '../kube/api-error.ts';
import { KubeClient } from '../kube/client.ts';
import { loadKubeConfig } from '../kube/kube-config.ts';
import type { Resource } from '../kube/resource.ts';
import { cijobs } from '../kube/resources.ts';
import { Transport } from '../kube/transport.ts';
import { programVersion } from '../version.ts';

/** Flags of every subcommand that talks to a cluster, named as kubectl names them. */
export interface ClusterFlags {
  kubeconfig?: string;
  context?: string;
  namespace?: string;
}

/** What a person may do on the cluster, with the rights of their kubeconfig. */
export interface Cluster {
  client: KubeClient;
  config: KubeConfig;
  namespace: string;
}

/** Something that cannot be done now, in one line for the person who asked. */
export class Unable extends Error {
  override readonly name = 'Unable';
}

/** Opens the cluster that the flags name, for as long as `use` takes. */
export async function withCluster<T>(flags: ClusterFlags, use: (cluster: Cluster) => Promise<T>): Promise<T> {
  const { kubeconfig, context } = flags;
  const config = loadKubeConfig({
    ...(kubeconfig === undefined ? {} : { file: kubeconfig }),
    ...(context === undefined ? {} : { context }),
  });
  const namespace =
    flags.namespace ?? config.getContextObject(config.getCurrentContext())?.namespace ?? 'default';
  const transport = new Transport({ config, clock: systemClock, userAgent: `cijob/${programVersion}` });
  try {
    return await use({ client: new KubeClient(transport), config, namespace });
  } finally {
    transport.close();
  }
}

/** Reads a CiJob of the namespace. @throws Unable when there is none. */
export async function getJob({ client, namespace }: Cluster, name: string): Promise<CiJob> {
  try {
    return await client.get(cijobs, { namespace, name });
  } catch (error) {
    if (hasReason(error, 'NotFound')) throw notThere(namespace, name);
    throw error;
  }
}

/** Every object of a collection, as the API server has it. */
export async function listAll(
  client: KubeClient,
  resource: Resource<unknown>,
  query: { namespace?: string | undefined; labelSelector?: string | undefined },
): Promise<unknown[]> {
  const items: unknown[] = [];
  let next: string | undefined;
  do {
    const page = await client.list(resource, query, { limit: 500, continue: next });
    items.push(...page.items);
    next = page.continue;
  } while (next !== undefined);
  return items;
}

/** Names of the CiJobs in the namespace that the flags lead to. */
export function jobNames(flags: ClusterFlags): Promise<string[]> {
  return withCluster(flags, async ({ client, namespace }) => {
    const jobs = await listAll(client, cijobs, { namespace });
    return jobs.map((job) => Named.parse(job).metadata.name);
  });
}

const Named = z.object({ metadata: z.object({ name: z.string() }) });

/** One object as the API server has it, every field of it. @throws Unable when there is none. */
export async function getRaw(
  client: KubeClient,
  resource: Resource<unknown>,
  ref: { namespace: string; name: string },
): Promise<unknown> {
  try {
    return await client.get({ ...resource, schema: z.unknown() }, ref);
  } catch (error) {
    if (hasReason(error, 'NotFound')) throw notThere(ref.namespace, ref.name);
    throw error;
  }
}

function notThere(namespace: string, name: string): Unable {
  return new Unable(`there is no CiJob ${name} in namespace ${namespace}`);
}
