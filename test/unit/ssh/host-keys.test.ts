import { describe, expect, it } from 'vitest';
import { algorithmsFor, isPinned, parseHostKey } from '../../../controller/ssh/host-keys.ts';

const line = (type: string, bytes: string) => `${type} ${Buffer.from(bytes).toString('base64')} comment`;

describe('pinned host keys', () => {
  const pinned = [line('ssh-ed25519', 'one'), line('ssh-rsa', 'two')].map(parseHostKey);

  it('accept the very bytes and nothing else', () => {
    expect(isPinned(pinned, Buffer.from('one'))).toBe(true);
    for (const other of ['onf', 'on', 'one!', '']) expect(isPinned(pinned, Buffer.from(other))).toBe(false);
    expect(isPinned([], Buffer.from('one'))).toBe(false);
  });

  it('have only their own kinds of signature offered, and no SHA-1', () => {
    expect(algorithmsFor(pinned)).toEqual(['ssh-ed25519', 'rsa-sha2-512', 'rsa-sha2-256']);
  });
});
