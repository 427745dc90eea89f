/** Guest paths of the mounts that every image knows (docs/guest-contract.md). */
export const wellKnownMountPaths: Readonly<Record<string, string>> = {
  snapshot: '/workspace/snapshot',
  'workspace-deps': '/staged/linux-rust/workspace-deps',
  'workspace-build': '/staged/linux-rust/workspace-build',
};

/** Guest paths that belong to the image or the runner: nothing may be mounted on or below them. */
export const reservedGuestPaths: readonly string[] = [
  '/artifacts',
  '/cargo-home',
  '/cargo-target',
  '/proc',
  '/sys',
  '/dev',
  '/run',
];

/** Where a mount appears in the guest: its own path, or the well-known one of its name. */
export function guestPath(mount: { name: string; path?: string | undefined }): string | undefined {
  if (mount.path !== undefined) return mount.path;
  return Object.hasOwn(wellKnownMountPaths, mount.name) ? wellKnownMountPaths[mount.name] : undefined;
}
