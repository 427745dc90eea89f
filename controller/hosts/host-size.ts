import { InstanceSpec } from '../api/cijob.ts';
import type { IncusHostSpec } from '../api/incushost.ts';
import { bytesOf } from '../api/text.ts';
import type { Offer } from './admission.ts';
import type { HostFacts } from './host-facts.ts';

/** The part of a machine's memory that instances may take together where the IncusHost does not say; the rest is the host's. */
const memoryShare = 0.9;

/** The size of a job that does not say one. No machine and no pool is too small for it. */
const usual = {
  cpu: InstanceSpec.shape.cpu.parse(undefined),
  memoryBytes: bytesOf(InstanceSpec.shape.memory.parse(undefined)),
  rootDiskBytes: bytesOf(InstanceSpec.shape.rootDisk.parse(undefined)),
};

/**
 * How much jobs may take of a host: what its spec says, otherwise what the machine has. CPUs that the spec does not
 * count are shared, as Incus does: an instance may have as many as the machine, and all together more. All of these are
 * limits, not reservations: where the spec says nothing, one job of the default size always has room on an empty host.
 *
 * @param facts undefined while the host has not said what it has; then nothing is counted that the spec does not say.
 */
export function hostSize(
  { capacity, storagePool }: Pick<IncusHostSpec, 'capacity' | 'storagePool'>,
  facts: Pick<HostFacts, 'machine' | 'poolBytes'> | undefined,
): Pick<Offer, 'capacity' | 'largest'> {
  const { cpu, memory } = machineOf(facts);
  const memoryBytes =
    capacity.memory === undefined
      ? Math.max(Math.floor(memory * memoryShare), usual.memoryBytes)
      : bytesOf(capacity.memory);
  const poolBytes = facts?.poolBytes[storagePool] ?? Infinity;
  return {
    capacity: { instances: capacity.instances, cpu: capacity.cpu ?? Infinity, memoryBytes },
    largest: {
      cpu: capacity.cpu ?? Math.max(cpu, usual.cpu),
      memoryBytes,
      rootDiskBytes: Math.max(poolBytes, usual.rootDiskBytes),
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
