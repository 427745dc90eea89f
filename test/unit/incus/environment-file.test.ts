import { expect, test } from 'vitest';
import { environmentFile } from '../../../controller/incus/environment-file.ts';

test('the file holds pairs that end in NUL, with every byte of the values, and an empty one at its end', () => {
  const anything = Buffer.from([0xff, 0x0a, 0x3d, 0xc3, 0x28]);
  const variables = new Map([
    ['ONE', Buffer.from('a b\n"$c"')],
    ['EMPTY', Buffer.alloc(0)],
    ['__proto__', anything],
  ]);
  const expected = [Buffer.from('ONE=a b\n"$c"\0EMPTY=\0__proto__='), anything, Buffer.from([0, 0])];
  expect(environmentFile(variables)).toEqual(Buffer.concat(expected));
  expect(environmentFile(new Map())).toEqual(Buffer.from([0]));
});
