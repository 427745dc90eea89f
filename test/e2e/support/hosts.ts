import type { IncusHostSpec, SshConnection } from '../../../controller/api/incushost.ts';
import type { BenchHost } from './bench.ts';

/** The controller's own namespace in these tests: its lease, and the keys of the hosts. */
export const systemNamespace = 'cijob-system';

/** What a test says of an IncusHost; the rest follows from the bench's host. */
export interface HostInput {
  via?: 'Socket' | 'Sudo';
  /** Default: 4. */
  slots?: number;
  labels?: Record<string, string>;
  /** Instead of what the bench's host says. */
  ssh?: Partial<SshConnection>;
  spec?: Partial<IncusHostSpec>;
}

/** The IncusHost for a host of the bench, and the Secret with the key that opens it. */
export async function hostManifests(name: string, host: BenchHost, input: HostInput = {}): Promise<object[]> {
  const { sshd, incus, project, sources } = host;
  const incusHost = {
    apiVersion: 'ci.pikaci.dev/v1alpha1',
    kind: 'IncusHost',
    metadata: { name, ...(input.labels ? { labels: input.labels } : {}) },
    spec: {
      connection: {
        ssh: {
          address: sshd.address,
          port: sshd.port,
          user: sshd.user,
          privateKeySecretRef: { name: `${name}-ssh`, key: 'id_ed25519' },
          hostKeys: [await sshd.hostKey()],
          via: input.via ?? 'Socket',
          socketPath: incus.socketPath,
          ...input.ssh,
        },
      },
      project,
      capacity: { instances: input.slots ?? 4 },
      allowedSources: [sources],
      // The last is one that is not there.
      allowedImages: ['pikaci/*'],
      allowedProfiles: ['default', 'no-such-profile'],
      allowedNamespaces: { all: true },
      ...input.spec,
    },
  };
  return [keySecret(name, await sshd.privateKey()), incusHost];
}

/** The Secret in which an IncusHost's private key is. */
export function keySecret(host: string, privateKey: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: `${host}-ssh`, namespace: systemNamespace },
    stringData: { id_ed25519: privateKey },
  };
}
