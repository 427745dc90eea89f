import { expect, test } from 'vitest';
import { printable, printableLine } from '../../controller/printable.ts';

test.each([
  ['a title of the window', 'a\u001b]0;owned\u0007b', 'a\uFFFD]0;owned\uFFFDb'],
  ['a colour', '\u001b[31mred\u001b[0m', '\uFFFD[31mred\uFFFD[0m'],
  ['a carriage return', 'fail\rok', 'fail\uFFFDok'],
  ['a backspace', 'a\bb', 'a\uFFFDb'],
  ['C1, which some terminals take for ESC and a letter', 'a\u009b2Jb\u009d', 'a\uFFFD2Jb\uFFFD'],
  ['DEL', 'a\u007fb', 'a\uFFFDb'],
  ['text that is shown in another order', 'a\u202etxt.exe\u2066b', 'a\uFFFDtxt.exe\uFFFDb'],
])('%s does not reach a terminal', (_what, text, shown) => {
  expect(printable(text)).toBe(shown);
  expect(printableLine(text)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/);
});

test('lines, tabs, and the letters of all languages stay', () => {
  const text = 'one\n\ttwo: Grüße, 世界 🎉 \u200fשלום';
  expect(printable(text)).toBe(text);
  expect(printableLine('one\r\n\ttwo')).toBe('one two');
});
