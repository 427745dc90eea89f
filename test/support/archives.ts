import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { extract, type Header } from 'tar-stream';

/** A file of an archive. */
export interface ArchivedFile {
  name: string;
  content: Buffer;
  header: Header;
}

/** All that is in a .tar.gz, in order. Rejects when it is not whole. */
export async function filesIn(archive: Buffer): Promise<ArchivedFile[]> {
  const files: ArchivedFile[] = [];
  const entries = Readable.from([archive]).pipe(createGunzip()).pipe(extract());
  for await (const entry of entries) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry as AsyncIterable<Buffer>) chunks.push(chunk);
    files.push({ name: entry.header.name, content: Buffer.concat(chunks), header: entry.header });
  }
  return files;
}

/** The names in a .tar.gz, in order. */
export async function namesIn(archive: Buffer): Promise<string[]> {
  return (await filesIn(archive)).map(({ name }) => name);
}
