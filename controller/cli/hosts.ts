import { findCondition } from '../api/conditions.ts';
import type { IncusHost } from '../api/incushost.ts';
import { incushosts } from '../kube/resources.ts';
import { printableJson } from '../printable.ts';
import { listAll, withCluster, type ClusterFlags } from './cluster.ts';
import { note, out } from './output.ts';
import { age, table } from './table.ts';

export interface HostsOptions extends ClusterFlags {
  output: 'table' | 'json';
}

/** `cijob hosts`: the IncusHosts, and how much room they have. */
export async function hosts(options: HostsOptions): Promise<number> {
  return withCluster(options, async ({ client }) => {
    const items = await listAll(client, incushosts, {});
    if (options.output === 'json') {
      const whole = { apiVersion: 'v1', kind: 'List', metadata: {}, items };
      await out(`${printableJson(whole, 2)}\n`);
      return 0;
    }
    const all = items.flatMap((one) => incushosts.schema.safeParse(one).data ?? []);
    if (all.length === 0) note('no IncusHosts');
    else await out(`${hostLines(all, Date.now()).join('\n')}\n`);
    return 0;
  });
}

export function hostLines(all: readonly IncusHost[], now: number): string[] {
  const rows = all.map(({ metadata, spec, status }) => {
    const ready = findCondition(status?.conditions, 'Ready');
    const { used = 0, capacity = spec.capacity.instances } = status?.instances ?? {};
    return [
      metadata.name,
      ready?.status ?? 'Unknown',
      spec.unschedulable ? 'Unschedulable' : ready?.status === 'True' ? '' : (ready?.reason ?? 'NotSeenYet'),
      `${used}/${capacity}`,
      status?.incus?.version ?? '',
      status?.incus?.instanceTypes.join(',') ?? '',
      age(status?.observedAt, now),
      age(metadata.creationTimestamp, now),
    ];
  });
  return table([['NAME', 'READY', 'REASON', 'SLOTS', 'INCUS', 'TYPES', 'SEEN', 'AGE'], ...rows]);
}
