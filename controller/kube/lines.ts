/**
 * Splits a byte stream into lines. A last line without its newline is dropped: its writer died in the middle of it.
 *
 * @param maxBytes Longest line taken; a longer one is an error, before it is in memory whole.
 */
export async function* linesOf(stream: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      parts.push(chunk.subarray(start, end));
      checkLength(bytes + end - start, maxBytes);
      yield Buffer.concat(parts).toString('utf8');
      parts = [];
      bytes = 0;
      start = end + 1;
    }
    bytes += chunk.length - start;
    checkLength(bytes, maxBytes);
    parts.push(chunk.subarray(start));
  }
}

function checkLength(bytes: number, maxBytes: number): void {
  if (bytes > maxBytes) throw new RangeError(`a line is longer than ${maxBytes} bytes`);
}
