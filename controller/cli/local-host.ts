import { hostname } from 'node:os';

import { defaultSocketPath, IncusHostSpec, type IncusHost } from '../api/incushost.ts';
import { apiVersion } from '../api/meta.ts';

/** The host that `cijob run` uses when no other is given: Incus on this machine, where its own user may use anything. */
export function localHost(): IncusHost {
  const directory = process.env['INCUS_DIR'];
  const socketPath = directory === undefined ? defaultSocketPath : `${directory}/unix.socket`;
  const spec = IncusHostSpec.parse({
    connection: { local: { socketPath } },
    capacity: { instances: 4 },
    allowedNamespaces: { all: true },
  });
  return hostResource('local', { ...spec, allowedSources: ['/'], allowedProfiles: ['*'] });
}

/** An IncusHost as the API server would store it. */
export function hostResource(
  name: string,
  spec: IncusHostSpec,
  labels: Record<string, string> = {},
): IncusHost {
  return {
    apiVersion,
    kind: 'IncusHost',
    metadata: {
      name,
      uid: `${hostname()}-${name}`,
      generation: 1,
      creationTimestamp: new Date().toISOString(),
      labels,
    },
    spec,
  };
}
