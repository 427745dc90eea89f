import { Buffer } from 'node:buffer';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { addFile, endOfArchive, type ArchiveDraft } from '../../../controller/hosts/archive.ts';
import { filesIn } from '../../support/archives.ts';

/** An archive in memory, with room for so many bytes. */
class Memory implements ArchiveDraft {
  bytes = Buffer.alloc(0);
  readonly #room: number;

  constructor(room = Infinity) {
    this.#room = room;
  }

  get size(): number {
    return this.bytes.length;
  }

  get whole(): Buffer {
    return Buffer.concat([this.bytes, endOfArchive]);
  }

  write(bytes: Buffer): Promise<boolean> {
    if (this.size + bytes.length > this.#room) return Promise.resolve(false);
    this.bytes = Buffer.concat([this.bytes, bytes]);
    return Promise.resolve(true);
  }

  cutTo(size: number): Promise<void> {
    this.bytes = this.bytes.subarray(0, size);
    return Promise.resolve();
  }

  publish(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  discard(): Promise<void> {
    return Promise.resolve();
  }
}

const modifiedAt = Date.parse('2025-04-03T02:01:00Z');
const file = (path: string, size: number) => ({ path, size, modifiedAt });

/** Bytes that hardly get smaller, the same each time. */
function noise(length: number): Buffer {
  let seed = 1;
  return Buffer.from(
    Array.from({ length }, () => {
      seed = (seed * 48271) % 2147483647;
      return seed & 0xff;
    }),
  );
}

async function* pieces(...parts: (Buffer | string | Error)[]): AsyncGenerator<Buffer> {
  for (const part of parts) {
    await Promise.resolve();
    if (part instanceof Error) throw part;
    yield Buffer.from(part);
  }
}

describe('an archive of artifacts', () => {
  it('has the bytes of each file and when it was changed, and nothing of whose it was', async () => {
    const draft = new Memory();
    const long = `${'directory/'.repeat(30)}é.bin`;
    expect(await addFile(draft, file('a.txt', 6), pieces('one', 'two'))).toBe(true);
    expect(await addFile(draft, file(long, 100_000), pieces(noise(65_536), noise(34_464)))).toBe(true);
    expect(await addFile(draft, file('full', 512), pieces(noise(512)))).toBe(true);
    const files = await filesIn(draft.whole);
    expect(files.map(({ name }) => name)).toEqual(['a.txt', long, 'full']);
    expect(files[0]).toEqual({
      name: 'a.txt',
      content: Buffer.from('onetwo'),
      header: expect.objectContaining({
        ...{ type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: new Date(modifiedAt) },
      }) as unknown,
    });
    expect(files[1]?.content.equals(Buffer.concat([noise(65_536), noise(34_464)]))).toBe(true);
    expect(files[2]?.content.equals(noise(512))).toBe(true);
    // Two blocks of zeros end it, once.
    expect(gunzipSync(draft.whole).length % 512).toBe(0);
    expect(gunzipSync(draft.whole).subarray(-1536, -1024).equals(Buffer.alloc(512))).toBe(false);
  });

  it('is the same bytes for the same files', async () => {
    const [one, other] = [new Memory(), new Memory()];
    await addFile(one, file('a', 4), pieces('abcd'));
    await addFile(other, file('a', 4), pieces('ab', 'cd'));
    expect(one.bytes.equals(other.bytes)).toBe(true);
  });

  it.each([
    ['has shrunk', pieces('ab')],
    ['has grown', pieces('abcd', 'e'.repeat(1_000))],
    ['cannot be read to its end', pieces('ab', new Error('cut'))],
  ])('holds nothing of a file that %s, and takes the next one', async (_what, content) => {
    const draft = new Memory();
    await addFile(draft, file('before', 1), pieces('x'));
    await expect(addFile(draft, file('broken', 4), content)).rejects.toThrow();
    await addFile(draft, file('after', 1), pieces('y'));
    expect((await filesIn(draft.whole)).map(({ name }) => name)).toEqual(['before', 'after']);
  });

  it('ends with the last whole file where there is no more room', async () => {
    const draft = new Memory(60_000);
    expect(await addFile(draft, file('first', 40_000), pieces(noise(40_000)))).toBe(true);
    let asked = 0;
    const endless = async function* () {
      for (; asked < 10_000; asked += 1) yield await Promise.resolve(noise(65_536));
    };
    expect(await addFile(draft, file('second', 655_360_000), endless())).toBe(false);
    expect((await filesIn(draft.whole)).map(({ name }) => name)).toEqual(['first']);
    // What will not fit is not read to its end.
    expect(asked).toBeLessThan(100);
  });
});
