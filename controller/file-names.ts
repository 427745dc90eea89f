import { createHash, randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';

/** The most bytes that Linux's file systems take for one name. An object's name may have 253, which leaves two for an ending. */
const maxNameBytes = 255;

/**
 * Name of the file of an object: the object's name and an ending such as `.tar.gz`. Where both together are too long, the
 * name is cut and a hash of all of it put in: the same name always has the same file, and no two names share one.
 */
export function fileNameOf(name: string, ending: string): string {
  const whole = `${name}${ending}`;
  if (Buffer.byteLength(whole) <= maxNameBytes) return whole;
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 16);
  return cut(name, `-${hash}${ending}`);
}

/** Path beside `path` for a file that is not whole yet: another one each time, and short enough whatever the name. */
export function draftPathOf(path: string, ending: string): string {
  const random = randomBytes(6).toString('hex');
  return join(dirname(path), cut(basename(path), `.${random}${ending}`));
}

/** As much of `name` as leaves room for `end`, and `end`. */
function cut(name: string, end: string): string {
  const characters = Array.from(name);
  while (Buffer.byteLength(characters.join('')) + Buffer.byteLength(end) > maxNameBytes) characters.pop();
  return `${characters.join('')}${end}`;
}
