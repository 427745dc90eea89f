import { projectPrefix } from '../e2e/support/leftovers.ts';
import { ensurePackages } from '../support/debian-packages.ts';
import { buildGuestImage, guestImagePackages, type GuestKind } from '../support/guest-image.ts';
import { Incusd, incusPackages } from '../support/incusd.ts';
import { hostManifest, writeSources, type Sources } from './example.ts';

/** What the jobs of the demo run on. */
export interface Machine {
  /** Manifest of the IncusHost. */
  host: string;
  image: string;
  sources: Sources;
}

const image = 'pikaci/demo';

/** What must be installed to build each kind of guest. Only the one with systemd is made of Debian packages. */
const packages: Record<GuestKind, readonly string[]> = {
  busybox: guestImagePackages.filter((name) => name !== 'debootstrap'),
  systemd: guestImagePackages,
};

export type Step = <T>(title: string, work: (onProgress: (line: string) => void) => Promise<T>) => Promise<T>;

/** Brings up what the demo needs: packages, an Incus of its own, the guest image, example sources. */
export async function prepareMachine({
  runDir,
  dir,
  guest,
  stack,
  step,
}: {
  /** The directory of the whole run, after which the Incus project is named. */
  runDir: string;
  /** For the example sources. */
  dir: string;
  guest: GuestKind;
  /** Takes it all down again. */
  stack: AsyncDisposableStack;
  /** Called with each thing to do and what it is called. */
  step: Step;
}): Promise<Machine> {
  const wanted = [...incusPackages, ...packages[guest]];
  await step(`Debian packages: ${wanted.join(', ')}`, (onProgress) =>
    ensurePackages(wanted, { reason: 'to run Incus and to build a guest image', onProgress }),
  );
  const incusd = await step("an Incus server of the demo's own", async () => stack.use(await Incusd.start()));
  await step(`a guest image (${guest})`, async (onProgress) => {
    const { tarball } = await buildGuestImage(guest, { onProgress });
    await incusd.importImage(tarball, image);
  });
  return step('example sources, and an Incus project that may mount them and nothing else', async () => {
    const sources = await writeSources(dir);
    const project = `${projectPrefix(runDir)}ci`;
    await incusd.createRestrictedProject(project, sources.allowed);
    return { host: hostManifest(incusd.socketPath, project, sources), image, sources };
  });
}
