/**
 * The beginning of an object's name, at most `length` characters, to which something can be added: it ends with a letter
 * or a digit, as each part of a name between dots must.
 */
export function beginningOf(name: string, length: number): string {
  return name.slice(0, length).replace(/[^a-z0-9]+$/, '');
}
