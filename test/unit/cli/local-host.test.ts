import { expect, test } from 'vitest';
import { localHost } from '../../../controller/cli/local-host.ts';

test("the machine's own Incus lets its user mount anything, but nowhere else in the guest than any host does", () => {
  const { allowedSources, allowedMountPaths } = localHost().spec;
  expect({ allowedSources, allowedMountPaths }).toEqual({ allowedSources: ['/'], allowedMountPaths: [] });
});
