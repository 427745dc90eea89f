import { isIPv4, isIPv6 } from 'node:net';

/** Addresses of one family, in a row, both ends included. */
export interface AddressRange {
  family: 4 | 6;
  from: bigint;
  to: bigint;
}

/** Reads `10.0.0.0/8`, `10.0.0.1`, `10.0.0.1-10.0.0.9`, or the same of IPv6; undefined when it is something else. */
export function rangeOf(text: string): AddressRange | undefined {
  const dash = text.split('-');
  if (dash.length === 2) {
    const [from, to] = dash.map(addressOf);
    if (!from || !to || from.family !== to.family) return undefined;
    return { family: from.family, from: from.value, to: to.value };
  }
  const [address = '', prefix] = text.split('/');
  const base = addressOf(address);
  if (!base) return undefined;
  const bits = base.family === 4 ? 32 : 128;
  const length = prefix === undefined ? bits : Number(prefix);
  if (!Number.isInteger(length) || length < 0 || length > bits) return undefined;
  const size = 1n << BigInt(bits - length);
  const from = (base.value / size) * size;
  return { family: base.family, from, to: from + size - 1n };
}

/** What is left of ranges when others are taken out of them. */
export function without(
  ranges: readonly AddressRange[],
  others: readonly AddressRange[],
): readonly AddressRange[] {
  return others.reduce<readonly AddressRange[]>(
    (left, other) => left.flatMap((range) => minus(range, other)),
    ranges,
  );
}

/** Whether two ranges have an address in common. */
export function overlap(one: AddressRange, other: AddressRange): boolean {
  return one.family === other.family && one.from <= other.to && other.from <= one.to;
}

function minus(range: AddressRange, other: AddressRange): AddressRange[] {
  if (!overlap(range, other)) return [range];
  return [
    ...(other.from > range.from ? [{ ...range, to: other.from - 1n }] : []),
    ...(other.to < range.to ? [{ ...range, from: other.to + 1n }] : []),
  ];
}

function addressOf(text: string): { family: 4 | 6; value: bigint } | undefined {
  if (isIPv4(text)) return { family: 4, value: joined(text.split('.'), 10, 8n) };
  if (!isIPv6(text) || text.includes('%')) return undefined;
  // The URL writes it without dots and in its shortest form.
  const short = new URL(`http://[${text}]`).hostname.slice(1, -1);
  const [head = '', tail] = short.split('::');
  const parts = (half: string) => half.split(':').filter((part) => part !== '');
  const ends = tail === undefined ? [] : parts(tail);
  const zeros = Array.from({ length: 8 - parts(head).length - ends.length }, () => '0');
  return { family: 6, value: joined([...parts(head), ...zeros, ...ends], 16, 16n) };
}

function joined(digits: readonly string[], base: 10 | 16, bits: bigint): bigint {
  return digits.reduce((value, digit) => (value << bits) + BigInt(Number.parseInt(digit, base)), 0n);
}
