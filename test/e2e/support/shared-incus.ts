import type { TestProject } from 'vitest/node';
import { buildGuestImage, type GuestKind } from '../../support/guest-image.ts';
import type { IncusServer } from '../../support/incus-server.ts';
import { Incusd } from '../../support/incusd.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** INCUS_DIR of the server that all test files of a run share. */
    incusDir: string;
  }
}

/** The alias under which each kind of test guest is an image on every Incus server of the bench. */
export const guestAliases: Record<GuestKind, string> = {
  systemd: 'pikaci/systemd',
  busybox: 'pikaci/busybox',
};

/** Puts both guest images on a server. */
export async function importGuestImages(incus: IncusServer): Promise<void> {
  for (const [kind, alias] of Object.entries(guestAliases) as [GuestKind, string][]) {
    await incus.importImage((await buildGuestImage(kind)).tarball, alias);
  }
}

/**
 * Run once by vitest around all test files: one Incus with both guest images. Files keep out of each other's way by an
 * Incus project each; those that kill incusd bring up one of their own.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const incusd = await Incusd.start();
  try {
    await importGuestImages(incusd);
  } catch (error) {
    await incusd.stop();
    throw error;
  }
  project.provide('incusDir', incusd.dir);
  return () => incusd.stop();
}
