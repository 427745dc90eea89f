import { ensurePackages } from './debian-packages.ts';
import { buildGuestImage, guestImagePackages } from './guest-image.ts';

/* npm run guest-image [-- systemd|busybox]: makes a container image that keeps the guest contract, and prints its path. */

const kind = process.argv[2] ?? 'systemd';
if (kind !== 'systemd' && kind !== 'busybox') {
  console.error(`guest-image: systemd or busybox, not ${kind}`);
  process.exit(64);
}
const onProgress = (line: string) => console.error(line);
try {
  await ensurePackages(guestImagePackages, { reason: 'to build a guest image', onProgress });
  const { tarball } = await buildGuestImage(kind, { onProgress });
  console.log(tarball);
} catch (error) {
  console.error(`guest-image: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
