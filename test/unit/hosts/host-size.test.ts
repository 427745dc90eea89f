import { describe, expect, it } from 'vitest';
import { hostSize } from '../../../controller/hosts/host-size.ts';

const GiB = 2 ** 30;
const machine = { told: { cpu: { total: 8 }, memory: { total: 100 * GiB } } };
const facts = { machine, poolBytes: { default: 500 * GiB, small: 5 * GiB } };
const size = (
  capacity: { cpu?: number; memory?: string } = {},
  told?: Parameters<typeof hostSize>[1],
  storagePool = 'default',
) => hostSize({ capacity: { instances: 4, ...capacity }, storagePool }, told);

describe('how much jobs may take of a host', () => {
  it('is what its spec says, whatever the machine has', () => {
    expect(size({ cpu: 16, memory: '200GiB' }, facts)).toEqual({
      capacity: { instances: 4, cpu: 16, memoryBytes: 200 * GiB },
      largest: { cpu: 16, memoryBytes: 200 * GiB, rootDiskBytes: 500 * GiB },
    });
  });

  it('is otherwise nine tenths of the memory, and CPUs that are shared: each may ask for all of them', () => {
    expect(size({}, facts)).toEqual({
      capacity: { instances: 4, cpu: Infinity, memoryBytes: 90 * GiB },
      largest: { cpu: 8, memoryBytes: 90 * GiB, rootDiskBytes: 500 * GiB },
    });
  });

  it('is not limited by what is not known', () => {
    const unknown = {
      capacity: { instances: 4, cpu: Infinity, memoryBytes: Infinity },
      largest: { cpu: Infinity, memoryBytes: Infinity, rootDiskBytes: Infinity },
    };
    expect(size()).toEqual(unknown);
    expect(size({}, { machine: { untold: 'Forbidden' }, poolBytes: {} })).toEqual(unknown);
    const none = { told: { cpu: { total: 0 }, memory: { total: 0 } } };
    expect(size({}, { machine: none, poolBytes: {} })).toEqual(unknown);
  });

  it('has room for one job of the default size on any machine, where the spec does not say otherwise', () => {
    const tiny = { machine: { told: { cpu: { total: 1 }, memory: { total: GiB } } }, poolBytes: {} };
    expect(size({}, tiny)).toEqual({
      capacity: { instances: 4, cpu: Infinity, memoryBytes: 4 * GiB },
      largest: { cpu: 2, memoryBytes: 4 * GiB, rootDiskBytes: Infinity },
    });
    expect(size({ cpu: 1, memory: '1GiB' }, tiny)).toMatchObject({
      capacity: { cpu: 1, memoryBytes: GiB },
      largest: { cpu: 1, memoryBytes: GiB },
    });
  });

  it('is by the storage pool that root disks are in, and lets the default size be in any', () => {
    expect(size({}, facts, 'small').largest.rootDiskBytes).toBe(20 * GiB);
    expect(size({}, facts, 'unknown').largest.rootDiskBytes).toBe(Infinity);
  });
});
