import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { linesOf } from '../../../controller/kube/lines.ts';

async function* chunks(text: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  await Promise.resolve();
  let start = 0;
  for (const size of sizes) {
    yield text.subarray(start, start + size);
    start += size;
  }
  yield text.subarray(start);
}
async function read(text: string, sizes: readonly number[] = [], maxBytes = 1000): Promise<string[]> {
  const lines = [];
  for await (const line of linesOf(chunks(Buffer.from(text), sizes), maxBytes)) lines.push(line);
  return lines;
}

describe('lines of a stream', () => {
  it('are the same however the bytes come', async () => {
    const line = fc.string({ unit: 'grapheme', maxLength: 20 }).map((text) => text.replaceAll('\n', ''));
    const sizes = fc.array(fc.integer({ min: 0, max: 15 }), { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 10 }), sizes, async (lines, sizes) => {
        expect(await read(lines.map((one) => `${one}\n`).join(''), sizes)).toEqual(lines);
      }),
    );
  });

  it('leave out half a line at the end', async () => {
    expect(await read('one\ntwo\nthr', [2, 5])).toEqual(['one', 'two']);
  });

  it.each([[[]], [[50, 50]]])('are refused when too long, ended or not (chunks %j)', async (sizes) => {
    expect(await read(`${'x'.repeat(100)}\n`, sizes, 100)).toHaveLength(1);
    await expect(read(`${'x'.repeat(101)}\n`, sizes, 100)).rejects.toThrow(RangeError);
    await expect(read('x'.repeat(101), sizes, 100)).rejects.toThrow(RangeError);
  });
});
