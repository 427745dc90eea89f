import type { Instance } from './schemas.ts';

/** The log of an instance in which Incus, or what it runs the instance with, says why a start failed. */
export const logOf: Readonly<Record<Instance['type'], string>> = {
  container: 'lxc.log',
  'virtual-machine': 'qemu.log',
};

/**
 * `lxc NAME TIME ERROR    MODULE - FILE:FUNCTION:LINE - WHAT`: where in LXC it was found helps nobody. Lines without a
 * name are of commands to a container that is not there (any more).
 */
const lxcError = /^lxc \S+ [0-9.]+ ERROR +\S+ - \S+:\d+ - (?<what>.+)$/;
/** Errors that only say that there was another one. */
const consequence = /^(An error occurred in another process|Failed to (spawn|setup) )/;

/**
 * What an instance's log says of why it did not start: the first errors of LXC, of which the later ones are consequences;
 * the last lines of QEMU.
 */
export function startErrors(type: Instance['type'], log: string): string[] {
  const lines = log.split('\n').map((line) => line.trim());
  if (type === 'virtual-machine') return lines.filter((line) => line !== '').slice(-3);
  return lines
    .flatMap((line) => lxcError.exec(line)?.groups?.['what'] ?? [])
    .filter((what) => !consequence.test(what))
    .slice(0, 2);
}

/** A text of at most so many characters: its beginning and its end. Incus's errors often say last what went wrong. */
export function shortened(text: string, most: number): string {
  if (text.length <= most) return text;
  const head = Math.floor(most / 3);
  return `${text.slice(0, head)} … ${text.slice(text.length - (most - head - 3))}`;
}
