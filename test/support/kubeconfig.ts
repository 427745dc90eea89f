import { readFile, writeFile } from 'node:fs/promises';
import type { KeyPair } from './certificates.ts';

/** What stands under `user` in a kubeconfig. */
export type Credentials = Record<string, string>;

/** Credentials of the holder of a client certificate. */
export async function certificateCredentials(pair: KeyPair): Promise<Credentials> {
  return {
    'client-certificate-data': (await readFile(pair.certificate)).toString('base64'),
    'client-key-data': (await readFile(pair.key)).toString('base64'),
  };
}

/** Writes a kubeconfig with everything inline, so that the file can be copied anywhere. JSON is YAML too. */
export async function writeKubeconfig(
  file: string,
  server: string,
  authority: KeyPair,
  user: Credentials,
  namespace = 'default',
): Promise<void> {
  const authorityData = (await readFile(authority.certificate)).toString('base64');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'bench', cluster: { server, 'certificate-authority-data': authorityData } }],
    users: [{ name: 'user', user }],
    contexts: [{ name: 'bench', context: { cluster: 'bench', user: 'user', namespace } }],
    'current-context': 'bench',
  };
  await writeFile(file, JSON.stringify(config, null, 2), { mode: 0o600 });
}
