import { expect, test } from 'vitest';
import { rootDiskEnforced } from '../../../controller/hosts/root-disk.ts';

const pools = (driver: string) => ({ pools: { told: [{ name: 'fast', driver }] } });
const both = ['Container', 'VirtualMachine'] as const;
const answer = (...args: Parameters<typeof rootDiskEnforced>) => {
  const { status, reason } = rootDiskEnforced(...args);
  return `${status} ${reason}`;
};

test.each([
  ['btrfs', 'True Enforced'],
  ['zfs', 'True Enforced'],
  ['lvm', 'True Enforced'],
  ['ceph', 'True Enforced'],
  ['dir', 'False DriverDir'],
  ['something-new', 'Unknown DriverNotKnown'],
])('a pool of the driver %s: %s', (driver, expected) => {
  expect(answer('fast', both, pools(driver))).toBe(expected);
});

test('a pool of directories limits virtual machines, whose disk is a file of that size', () => {
  expect(answer('fast', ['VirtualMachine'], pools('dir'))).toBe('True Enforced');
  expect(answer('fast', ['Container'], pools('dir'))).toBe('False DriverDir');
});

test('a pool that is not there, and pools that the host does not show', () => {
  expect(answer('slow', both, pools('zfs'))).toBe('False PoolNotFound');
  expect(rootDiskEnforced('fast', both, { pools: { untold: 'not allowed' } })).toEqual({
    status: 'Unknown',
    reason: 'PoolNotReadable',
    message: 'not allowed',
  });
});
