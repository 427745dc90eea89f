import { InstanceSpec } from '../api/cijob.ts';
import type { IncusHostSpec } from '../api/incushost.ts';
import { bytesOf } from '../api/text.ts';
import type { Offer } from './admission.ts';
import type { HostFacts } from './host-facts.ts';

/** The part of a machine's memory that instances may take together where the IncusHost does not say; the rest is the host's. */
const memoryShare = 0.9;

/** The size that a job asks for which does not say: no pool is too small for it, as root disks are limits, not reservations. */
const defaultRootDiskBytes = bytesOf(InstanceSpec.shape.rootDisk.parse(undefined));

/**
 * How much jobs may take of a host: what its spec says, otherwise what the machine has. CPUs that the spec does not
 * count are shared, as Incus does: an instance may have as many as the machine, and all together more.
 *
 * @param facts undefined while the host has not said what it has; then nothing is counted that the spec does not say.
 */
export function hostSize(
  { capacity, storagePool }: Pick<IncusHostSpec, 'capacity' | 'storagePool'>,
  facts: Pick<HostFacts, 'machine' | 'poolBytes'> | undefined,
): Pick<Offer, 'capacity' | 'largest'> {
  const { cpu, memory } = machineOf(facts);
  const memoryBytes =
    capacity.memory === undefined ? Math.floor(memory * memoryShare) : bytesOf(capacity.memory);
  const poolBytes = facts?.poolBytes[storagePool] ?? Infinity;
  return {
    capacity: { instances: capacity.instances, cpu: capacity.cpu ?? Infinity, memoryBytes },
    largest: {
      cpu: capacity.cpu ?? cpu,
      memoryBytes,
      rootDiskBytes: Math.max(poolBytes, defaultRootDiskBytes),
    },
  };
}

/** What the machine has. A server that answers 0 does not know. */
function machineOf(facts: Pick<HostFacts, 'machine'> | undefined): { cpu: number; memory: number } {
  const { machine } = facts ?? {};
  if (!machine || 'untold' in machine) return { cpu: Infinity, memory: Infinity };
  const { cpu, memory } = machine.told;
  return { cpu: cpu.total || Infinity, memory: memory.total || Infinity };
}
