/**
 * The beginning of an object's name, at most `length` characters, to which something can be added: it ends with a letter
 * or a digit, as each part of a name between dots must.
 */
export function beginningOf(name: string, length: number): string {
  return name.slice(0, length).replace(/[^a-z0-9]+$/, '');
}

/** What the API server ends generated names with: letters and digits that make no words and are not mistaken for others. */
const alphabet = 'bcdfghjklmnpqrstvwxz2456789';
const endLength = 5;
/** So many different ends there are. */
export const nameEnds = alphabet.length ** endLength;
const longestGenerated = 63;

/**
 * A name from `metadata.generateName`, as the API server makes it: its beginning, and five more characters.
 *
 * @param end which of the {@link nameEnds} ends, from 0.
 */
export function generatedName(generateName: string, end: number): string {
  let [left, characters] = [end, ''];
  for (let length = 0; length < endLength; length += 1) {
    characters = `${alphabet.charAt(left % alphabet.length)}${characters}`;
    left = Math.floor(left / alphabet.length);
  }
  return `${generateName.slice(0, longestGenerated - endLength)}${characters}`;
}
