import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BenchHost } from '../e2e/support/bench.ts';
import { hostManifests } from '../e2e/support/hosts.ts';
import { buildGuestImage } from '../support/guest-image.ts';
import { Incusd } from '../support/incusd.ts';
import { Sshd } from '../support/sshd.ts';

/** What all three kinds of run share: one Incus, one image, one project, one way in by SSH. */
export interface Ground extends BenchHost {
  image: string;
  /** Of the image. */
  fingerprint: string;
  /** Files for `cijob run`: the IncusHost, and the job. */
  hostFile: string;
  jobFile: string;
}

const image = 'pikaci/busybox';

/** The job of every run: the shortest there is. */
export const benchJob = {
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  metadata: { name: 'bench', namespace: 'ci' },
  spec: {
    command: 'true',
    timeoutSeconds: 60,
    instance: { type: 'Container', image, cpu: 1, memory: '256MiB' },
  },
};

/** Brings it up below a directory, and notes on the stack how it comes down. */
export async function startGround(
  dir: string,
  stack: AsyncDisposableStack,
  onProgress: (line: string) => void,
): Promise<Ground> {
  const { tarball } = await buildGuestImage('busybox', { onProgress });
  const incus = stack.use(await Incusd.start());
  const fingerprint = await incus.importImage(tarball, image);
  const sources = join(dir, 'sources');
  await mkdir(sources);
  const project = `bench-${randomBytes(3).toString('hex')}`;
  await incus.createRestrictedProject(project, [sources]);
  const sshd = stack.use(await Sshd.start({ incus }));
  const host: BenchHost = { incus, sshd, project, sources };
  const hostFile = join(dir, 'host.yaml');
  const jobFile = join(dir, 'job.yaml');
  const [, incusHost] = await hostManifests('build-1', host);
  await writeFile(hostFile, JSON.stringify(incusHost));
  await writeFile(jobFile, JSON.stringify(benchJob));
  return { ...host, image, fingerprint, hostFile, jobFile };
}
