/*
 * Names that a guest gave its files. An archive of them is opened on other people's machines, and its names are shown on
 * their terminals.
 */

/** Bytes of a name, as file systems have it. */
const maxNameBytes = 255;
/**
 * Control characters and those that reorder what is shown; the separators of paths, also those of Windows; and what Incus
 * writes for bytes that are not UTF-8.
 */
const unfit = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069/\\\uFFFD]/u;
/** `C:x` is a path on another drive of Windows. */
const drive = /^[A-Za-z]:/;
/** Windows takes these for devices, in any directory and whatever follows a dot. */
const device = /^(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$) *(\.|$)/i;
/** Windows drops them: the file then has another's name. */
const droppedEnd = /[. ]$/;

/** Whether one name, without the directories above, can stand in an archive wherever that is opened. */
export function isFitName(name: string): boolean {
  return (
    name !== '' &&
    Buffer.byteLength(name) <= maxNameBytes &&
    ![unfit, drive, device, droppedEnd].some((hurtful) => hurtful.test(name))
  );
}

/** What paths have in common that some file systems take for one: those that ignore case, or how accents are written. */
export function foldedPath(path: string): string {
  return path.normalize('NFC').toLowerCase();
}

const longestShown = 100;

/** A path in a message: as it is where that is plain, else in quotes, with what cannot be shown as its code. */
export function shownPath(path: string): string {
  const characters = Array.from(path);
  const short = characters.slice(0, longestShown).join('') + (characters.length > longestShown ? '…' : '');
  if (/^[\w@%+=:,./…-]+$/.test(short)) return short;
  const code = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return `"${short.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069"\\]/g, code)}"`;
}
