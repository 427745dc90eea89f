import fc from 'fast-check';
import { expect, test } from 'vitest';
import { rangeOf, without } from '../../../controller/hosts/address-ranges.ts';

test.each([
  ['10.0.0.0/8', 0x0a000000n, 0x0affffffn],
  ['10.1.2.3/8', 0x0a000000n, 0x0affffffn],
  ['0.0.0.0/0', 0n, 0xffffffffn],
  ['192.0.2.1', 0xc0000201n, 0xc0000201n],
  ['1.0.0.0-9.255.255.255', 0x01000000n, 0x09ffffffn],
])('%s is a range of IPv4', (text, from, to) => {
  expect(rangeOf(text)).toEqual({ family: 4, from, to });
});

test.each([
  ['::1', 1n, 1n],
  ['::', 0n, 0n],
  ['fe80::/10', 0xfe80n << 112n, (0xfec0n << 112n) - 1n],
  ['1:2:3:4:5:6:7:8', 0x00010002000300040005000600070008n, 0x00010002000300040005000600070008n],
  ['::ffff:1.2.3.4', 0xffff01020304n, 0xffff01020304n],
  ['2001:db8::1-2001:db8::f', (0x20010db8n << 96n) + 1n, (0x20010db8n << 96n) + 15n],
])('%s is a range of IPv6', (text, from, to) => {
  expect(rangeOf(text)).toEqual({ family: 6, from, to });
});

test.each([
  ...[
    '',
    '@internal',
    '$set',
    '10.0.0.0/33',
    '10.0.0.0/x',
    '10.0.0',
    '::1-10.0.0.1',
    'fe80::1%eth0',
    '::/129',
  ],
  ...['1.1.1.1-', 'example.org', '1.1.1.1-2.2.2.2-3.3.3.3'],
])('%s is none', (text) => {
  expect(rangeOf(text)).toBeUndefined();
});

test('what is left is what is in the one and in none of the others', () => {
  const range = fc
    .tuple(fc.bigInt(0n, 20n), fc.bigInt(0n, 20n), fc.constantFrom(4 as const, 6 as const))
    .map(([a, b, family]) => ({ family, from: a < b ? a : b, to: a < b ? b : a }));
  fc.assert(
    fc.property(fc.array(range, { maxLength: 3 }), fc.array(range, { maxLength: 4 }), (some, others) => {
      const left = without(some, others);
      for (const family of [4, 6] as const) {
        for (let value = 0n; value <= 21n; value += 1n) {
          const isIn = (ranges: typeof left) =>
            ranges.some((one) => one.family === family && one.from <= value && value <= one.to);
          expect(isIn(left)).toBe(isIn(some) && !isIn(others));
        }
      }
    }),
  );
});
