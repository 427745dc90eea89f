import { expect, test } from 'vitest';
import { escapedJson, printable, printableJson, printableLine } from '../../controller/printable.ts';

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

test.each([
  ['C1', 'a\u009b31mb', '"a\\u009b31mb"'],
  ['DEL', 'a\u007fb', '"a\\u007fb"'],
  ['the order of text', 'a\u202etxt.exe\u2066b', '"a\\u202etxt.exe\\u2066b"'],
  ['ESC', 'a\u001b[31mb', '"a\\u001b[31mb"'],
  ['letters of all languages', 'Grüße, 世界 🎉 \u200fשלום', '"Grüße, 世界 🎉 \u200fשלום"'],
])('JSON of %s steers nothing and means the same', (_what, text, json) => {
  expect(printableJson(text)).toBe(json);
  const value = { [text]: [text, { text }] };
  for (const written of [printableJson(value), printableJson(value, 2), escapedJson(JSON.stringify(value))]) {
    expect(JSON.parse(written)).toEqual(value);
    expect(written).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/);
  }
  expect(printableJson({ a: 1 }, 2)).toBe('{\n  "a": 1\n}');
});
