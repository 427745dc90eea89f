import { expect, test } from 'vitest';
import { table } from '../../../controller/cli/table.ts';
import { cutTo, widthOf } from '../../../controller/cli/width.ts';

const red = (text: string) => `\u001b[31m${text}\u001b[39m`;

test('colours take no columns, wide characters two, and accents none', () => {
  expect(widthOf('plain')).toBe(5);
  expect(widthOf(red('plain'))).toBe(5);
  expect(widthOf('日本')).toBe(4);
  expect(widthOf('🚀!')).toBe(3);
  expect(widthOf('e\u0301')).toBe(1);
});

test('a text is cut by what is seen of it, and its colours are ended', () => {
  expect(cutTo(`a ${red('Failed')} b`, 20)).toBe(`a ${red('Failed')} b`);
  expect(cutTo(`a ${red('Failed')} b`, 8)).toBe(`a ${red('Failed')}`);
  expect(cutTo(`a ${red('Failed')} b`, 4)).toBe(`a ${red('Fa')}`);
  expect(cutTo('a日b', 2)).toBe('a');
  expect(cutTo('a日b', 3)).toBe('a日');
});

test('a table is aligned by what is seen', () => {
  expect(
    table([
      ['日本', 'x'],
      ['a', 'y'],
    ]),
  ).toEqual(['日本   x', 'a      y']);
});
