import type * as z from 'zod';
import { childSchema, type Step, type StructuralSchema } from './structural.ts';

/*
 * Guesses at what was meant, to end a message with. Each returns text that starts with a space or punctuation,
 * or nothing.
 */

/** For a field that does not exist: the sibling that is spelt alike, else a field of that name elsewhere. */
export function didYouMean(key: string, parent: readonly Step[], schema: StructuralSchema): string {
  const here = parent.reduce<StructuralSchema | undefined>(childSchema, schema);
  const siblings = Object.keys(here?.properties ?? {});
  const near = nearest(key, siblings);
  if (near !== undefined) return `; did you mean ${near}?`;
  const elsewhere = fieldsOf(schema, '').find((path) => path.endsWith(`.${key}`));
  if (elsewhere !== undefined) return `; did you mean ${elsewhere}?`;
  return siblings.length > 0 && siblings.length <= 20 ? `; there are ${siblings.join(', ')}` : '';
}

/** For a value of the wrong shape: how the same thing is written right. */
export function hintFor(issue: z.core.$ZodIssue, found: unknown): string {
  if (issue.code === 'invalid_type' && issue.expected === 'string') {
    const scalar = typeof found === 'number' || typeof found === 'boolean';
    // Not how it would look: the YAML may have said `on` or `0x10`.
    return scalar ? '; write it in quotes' : '';
  }
  if (typeof found !== 'string') return '';
  if (issue.code === 'invalid_value') {
    const near = nearest(found, issue.values.map(String));
    return near === undefined ? '' : `; did you mean ${near}?`;
  }
  if (issue.code === 'invalid_type' && issue.expected !== 'object' && issue.expected !== 'array') {
    return /^(\d+|true|false)$/.test(found) ? `; write it without quotes: ${found}` : '';
  }
  if (issue.message.startsWith('must be a size')) return sizeHint(found);
  return '';
}

/** `4Gi`, as Kubernetes writes it, is `4GiB` here; so are `4 GiB` and `4gib`. */
function sizeHint(found: string): string {
  const [, digits, unit] = /^\s*(\d+)\s*([kmgt]i?)b?\s*$/i.exec(found) ?? [];
  if (digits === undefined || unit === undefined || /^k/i.test(unit) || /^0/.test(digits)) return '';
  const prefix = unit.charAt(0).toUpperCase();
  return `; did you mean ${digits}${prefix}${unit.length === 2 ? 'i' : ''}B?`;
}

function fieldsOf(schema: StructuralSchema, path: string): string[] {
  if (schema.items) return fieldsOf(schema.items, `${path}[]`);
  return Object.entries(schema.properties ?? {})
    .filter(([name]) => !(path === '' && name === 'status'))
    .flatMap(([name, property]) => {
      const at = path === '' ? name : `${path}.${name}`;
      return [at, ...fieldsOf(property, at)];
    });
}

/** The one of `names` that `word` is a misspelling, another casing or the beginning of. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const lower = word.toLowerCase();
  if (lower.length < 2 || lower.length > 64) return undefined;
  const ranked = names
    .map((name) => ({ name, distance: editDistance(lower, name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = ranked;
  if (best && best.distance <= Math.max(1, Math.floor(lower.length / 3))) return best.name;
  return names.find((name) => lower.length >= 3 && name.toLowerCase().startsWith(lower));
}

/** How many letters must be put in, taken out or replaced to make `a` into `b` (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
