import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { busyboxBase } from './guest-image-busybox.ts';
import { withLock } from './guest-image-lock.ts';
import { guestOverlay } from './guest-image-overlay.ts';
import { systemdBase } from './guest-image-systemd.ts';
import { runOk } from './command.ts';

/** `systemd`: a small Debian, as a real guest is. `busybox`: a few megabytes without systemd, launched in no time. */
export type GuestKind = 'systemd' | 'busybox';

export interface GuestImageOptions {
  /** Where images are kept between runs. Default: cijob-controller/ in the user's cache directory. */
  cacheDir?: string;
  onProgress?: (line: string) => void;
}

export interface GuestImage {
  /** An Incus image in one file: metadata.yaml and rootfs/, uncompressed, as that is quickest to import and unpack. */
  tarball: string;
  /** Of everything the image is made from; a name for it. Not Incus's fingerprint. */
  digest: string;
}

/** The part of an image that seldom changes and takes long to make. */
export interface GuestBase {
  /** Everything the result depends on. */
  inputs: () => Promise<string>;
  /** Fills an empty directory with a root file system. */
  build: (rootfs: string, onProgress: (line: string) => void) => Promise<void>;
}

/** The Debian packages that must be installed before images can be built. */
export const guestImagePackages: readonly string[] = ['debootstrap', 'busybox-static', 'bash-static'];

const bases: Record<GuestKind, GuestBase> = { systemd: systemdBase, busybox: busyboxBase };

/**
 * Builds the image of a test guest that keeps docs/guest-contract.md, from Debian packages and nix/incus/ alone, or
 * takes it from the cache. Needs root and `guestImagePackages`. Of two builders at once, one waits for the other.
 */
export async function buildGuestImage(kind: GuestKind, options: GuestImageOptions = {}): Promise<GuestImage> {
  const { cacheDir = defaultCacheDir(), onProgress = () => undefined } = options;
  await mkdir(cacheDir, { recursive: true });
  const { inputs, build } = bases[kind];

  const baseDigest = digest(kind, await inputs());
  const base = join(cacheDir, `guest-${kind}-base-${baseDigest}.tar`);
  await unlessCached(base, async (work) => {
    onProgress(`building the ${kind} guest's base`);
    const started = performance.now();
    const rootfs = join(work, 'rootfs');
    await mkdir(rootfs);
    await build(rootfs, onProgress);
    await tar('--create', base, work, ['rootfs'], join(work, 'base.tar'));
    onProgress(`built the ${kind} guest's base in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  });

  const overlay = await guestOverlay(kind);
  const imageDigest = digest(baseDigest, overlay.digest);
  const tarball = join(cacheDir, `guest-${kind}-${imageDigest}.tar`);
  await unlessCached(tarball, async (work) => {
    const tree = join(work, 'tree');
    await mkdir(tree);
    await overlay.write(tree);
    await runOk('cp', [base, join(work, 'base.tar')]);
    await tar('--append', tarball, tree, ['metadata.yaml', 'rootfs'], join(work, 'base.tar'));
  });
  await forgetOld(cacheDir);
  return { tarball, digest: imageDigest };
}

function defaultCacheDir(): string {
  const cache = process.env['XDG_CACHE_HOME'] ?? '';
  return join(cache.startsWith('/') ? cache : join(homedir(), '.cache'), 'cijob-controller');
}

/** Makes `path` in a directory of its own beside it, unless it is there. What is there is marked as in use. */
async function unlessCached(path: string, make: (work: string) => Promise<void>): Promise<void> {
  if (existsSync(path)) {
    const now = new Date();
    await utimes(path, now, now);
    return;
  }
  await withLock(`${path}.lock`, async () => {
    if (existsSync(path)) return;
    // The finished file appears by rename, so one that is there is whole.
    const work = await mkdtemp(`${path}.building-`);
    try {
      await make(work);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
}

async function tar(mode: string, path: string, dir: string, names: string[], archive: string): Promise<void> {
  const always = ['--numeric-owner', '--sort=name', '--file', archive, '--directory', dir];
  await runOk('tar', [mode, ...always, ...names]);
  await rename(archive, path);
}

/** Removes what no run has used for a week: each change of the runner makes a new image. */
async function forgetOld(cacheDir: string): Promise<void> {
  const weekAgo = Date.now() - 7 * 24 * 3600 * 1000;
  for (const name of await readdir(cacheDir)) {
    if (!name.startsWith('guest-')) continue;
    const path = join(cacheDir, name);
    // Another builder may have been quicker.
    const used = await stat(path).catch(() => undefined);
    if (used && used.mtimeMs < weekAgo) await rm(path, { recursive: true, force: true });
  }
}

function digest(...parts: string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

/** The text of a module beside this one: what it does is an input of what it builds. */
export function sourceOf(url: string): Promise<string> {
  return readFile(new URL(url), 'utf8');
}
