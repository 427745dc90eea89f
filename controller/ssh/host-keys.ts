import { timingSafeEqual } from 'node:crypto';

/** A pinned public key: its type and its bytes as they go over the wire. */
export interface HostKey {
  type: string;
  blob: Buffer;
}

/** Reads `ssh-ed25519 AAAA… comment`, the form of ssh-keyscan without the host name. */
export function parseHostKey(line: string): HostKey {
  const [type = '', encoded = ''] = line.trim().split(/\s+/);
  return { type, blob: Buffer.from(encoded, 'base64') };
}

export function isPinned(keys: readonly HostKey[], blob: Buffer): boolean {
  return keys.some((key) => key.blob.length === blob.length && timingSafeEqual(key.blob, blob));
}

/**
 * The signature algorithms that belong to the pinned keys. Offering no others makes a server with several keys
 * show the pinned one.
 */
export function algorithmsFor(keys: readonly HostKey[]): string[] {
  const algorithms = keys.flatMap((key) =>
    key.type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [key.type],
  );
  return [...new Set(algorithms)];
}
