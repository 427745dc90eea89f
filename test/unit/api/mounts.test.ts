import { expect, test } from 'vitest';
import { mountPath } from '../../../controller/api/mounts.ts';

test('no host can allow what holds, is, or lies below a place of root or of the runner', () => {
  for (const path of ['/etc', '/etc/x', '/usr/bin', '/var', '/var/lib/pikaci-incus-run/claim', '/run/x'])
    expect(mountPath.safeParse(path).success, path).toBe(false);
  for (const path of ['/nix/store', '/cache', '/var/cache', '/home/pikaci/data', '/etcetera'])
    expect(mountPath.safeParse(path).success, path).toBe(true);
});
