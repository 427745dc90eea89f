import { readFile, stat } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Clock } from '../clock.ts';

export interface KeyFiles {
  /** PEM of the certificate, with those that lead to its root. */
  certificate: string;
  /** PEM of its private key. */
  key: string;
}

export interface KeyMaterial {
  cert: Buffer;
  key: Buffer;
}

const lookEvery = 10_000;

/**
 * Reads a certificate and its key.
 *
 * @throws Error that names the file, or says that the two do not belong together.
 */
export async function readKeyMaterial({ certificate, key }: KeyFiles): Promise<KeyMaterial> {
  const material = { cert: await readFile(certificate), key: await readFile(key) };
  try {
    createSecureContext(material);
  } catch (error) {
    throw new Error(`${certificate} and ${key} do not make a usable pair: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return material;
}

/**
 * Tells when the files were replaced, as cert-manager and the kubelet do. It looks now and then rather than watch:
 * the kubelet swaps a link two directories up, which a watch of the file does not show.
 *
 * @returns how to stop.
 */
export function followKeyFiles(
  files: KeyFiles,
  clock: Clock,
  onNew: (material: KeyMaterial) => void,
  onError: (error: unknown) => void,
): () => void {
  let seen: string | undefined;
  let stopped = false;
  let cancel: () => void = () => undefined;
  const look = async () => {
    try {
      const now = await versionOf(files);
      if (seen !== undefined && seen !== now) onNew(await readKeyMaterial(files));
      seen = now;
    } catch (error) {
      // Half replaced: what is there is served on, and looked at again.
      onError(error);
    }
    if (!stopped) cancel = clock.after(lookEvery, () => void look());
  };
  void look();
  return () => {
    stopped = true;
    cancel();
  };
}

async function versionOf({ certificate, key }: KeyFiles): Promise<string> {
  const [a, b] = await Promise.all([stat(certificate), stat(key)]);
  return [a.ino, a.mtimeMs, a.size, b.ino, b.mtimeMs, b.size].join(' ');
}
