/** The text of a manifest file, or why there is none. */
export type ManifestText = { text: string } | { fault: string; line?: number };

/** Byte order marks, by which kubectl knows an encoding too. Without one, a file is UTF-8. */
const marks: readonly (readonly [encoding: string, mark: readonly number[]])[] = [
  ['utf-8', [0xef, 0xbb, 0xbf]],
  ['utf-16le', [0xff, 0xfe]],
  ['utf-16be', [0xfe, 0xff]],
];

/**
 * Reads the bytes of a manifest file as kubectl does: as UTF-8, or as the byte order mark says that Windows' editors put
 * before it. Unlike kubectl, which replaces what is not valid by U+FFFD without a word, bytes that mean nothing are refused.
 */
export function manifestText(bytes: Uint8Array): ManifestText {
  const [encoding] = marks.find(([, mark]) => mark.every((byte, index) => bytes[index] === byte)) ?? [
    'utf-8',
  ];
  const text = new TextDecoder(encoding).decode(bytes);
  if (!isValid(encoding, bytes)) {
    const line = text.slice(0, text.indexOf('\uFFFD')).split('\n').length;
    return { fault: `has bytes that are not ${encoding.toUpperCase()}; save it as UTF-8`, line };
  }
  if (text.includes('\0')) {
    return { fault: 'has NUL characters: is it UTF-16 without a byte order mark? Save it as UTF-8' };
  }
  return { text };
}

function isValid(encoding: string, bytes: Uint8Array): boolean {
  try {
    new TextDecoder(encoding, { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}
