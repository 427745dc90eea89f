import { expect, test } from 'vitest';
import { generatedName, nameEnds } from '../../../controller/api/object-name.ts';

test('a generated name is its beginning and five characters, another for each end', () => {
  expect(generatedName('build-', 0)).toBe('build-bbbbb');
  expect(generatedName('build-', 1)).toBe('build-bbbbc');
  expect(generatedName('build-', nameEnds - 1)).toBe('build-99999');
  const ends = Array.from({ length: 2000 }, (_, index) => generatedName('', index * 7001));
  expect(new Set(ends).size).toBe(2000);
  for (const end of ends) expect(end).toMatch(/^[bcdfghjklmnpqrstvwxz2456789]{5}$/);
});

test('a generated name has at most 63 characters, as those of the API server', () => {
  expect(generatedName('a'.repeat(253), 0)).toBe(`${'a'.repeat(58)}bbbbb`);
});
