import type { ConditionClaim } from '../api/conditions.ts';
import type { HostFacts } from './host-facts.ts';
import type { InstanceType } from './host.ts';

/** Drivers of storage pools that hold every root disk to its size. */
const enforcing: readonly string[] = ['btrfs', 'ceph', 'linstor', 'lvm', 'lvmcluster', 'truenas', 'zfs'];

/**
 * Whether the storage pool holds a root disk to `instance.rootDisk`
 * (https://linuxcontainers.org/incus/docs/main/reference/storage_drivers/#feature-comparison).
 */
export function rootDiskEnforced(
  pool: string,
  instanceTypes: readonly InstanceType[],
  { pools }: Pick<HostFacts, 'pools'>,
): ConditionClaim {
  if ('untold' in pools) return { status: 'Unknown', reason: 'PoolNotReadable', message: pools.untold };
  const found = pools.told.find(({ name }) => name === pool);
  if (!found) {
    return { status: 'False', reason: 'PoolNotFound', message: `there is no storage pool ${pool}` };
  }
  const { driver } = found;
  const what = `storage pool ${pool} has the driver ${driver}`;
  if (enforcing.includes(driver)) {
    return { status: 'True', reason: 'Enforced', message: `${what}, which limits root disks` };
  }
  if (driver !== 'dir') {
    return { status: 'Unknown', reason: 'DriverNotKnown', message: `${what}, which is not known here` };
  }
  if (!instanceTypes.includes('Container')) {
    return { status: 'True', reason: 'Enforced', message: `${what}, which limits those of virtual machines` };
  }
  return {
    status: 'False',
    reason: 'DriverDir',
    message: `${what}: one container can fill the disk for all, unless its file system has project quotas, which Incus does not report`,
  };
}
