import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { directoryOf } from '../../../controller/logs/log-name.ts';
import { LogStore, type LogStoreOptions } from '../../../controller/logs/log-store.ts';
import { clearAway } from '../../support/left-under.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

describe('the log store', () => {
  let directory: string;
  let clock: ManualClock;
  let live: Set<string>;
  let errors: unknown[];

  beforeEach(async () => {
    directory = await makeTempDir('store');
    clock = new ManualClock();
    live = new Set();
    errors = [];
  });
  afterEach(() => clearAway(directory));

  const open = (options: Partial<LogStoreOptions> = {}) =>
    LogStore.open({
      directory,
      maxBytes: 1000,
      maxArchiveBytes: 2000,
      totalBytes: 10_000,
      clock,
      isLive: ({ uid }) => live.has(uid),
      onError: (_what, error) => errors.push(error),
      ...options,
    });

  const log = (uid: string, attempt = 1) => ({ namespace: 'ci', name: `job-${uid}`, uid, attempt });
  const text = async (store: LogStore, uid: string, attempt = 1) =>
    (await store.read(log(uid, attempt), 0, 100_000)).toString();

  it('keeps bytes in order, and has them still when it is opened again', async () => {
    const store = await open();
    expect(store.size(log('a'))).toBeUndefined();
    expect(await store.write(log('a'), 0, Buffer.from('one '))).toBe(true);
    expect(await store.write(log('a'), 4, Buffer.from('two'))).toBe(true);
    const again = await open();
    expect(again.size(log('a'))).toBe(7);
    expect(await text(again, 'a')).toBe('one two');
    expect(again.totalBytes).toBe(7);
  });

  it('passes over what it has already, and refuses what would leave a gap', async () => {
    const store = await open();
    await store.write(log('a'), 0, Buffer.from('abcdef'));
    expect(await store.write(log('a'), 3, Buffer.from('defghi'))).toBe(true);
    expect(await store.write(log('a'), 0, Buffer.from('abc'))).toBe(true);
    expect(await store.write(log('a'), 10, Buffer.from('k'))).toBe(false);
    expect(await text(store, 'a')).toBe('abcdefghi');
  });

  it('ends up with the same bytes however the pieces overlap and however often it is opened anew', async () => {
    const whole = Buffer.from(Array.from({ length: 400 }, (_, index) => index % 251));
    const piece = fc.record({ back: fc.nat(50), length: fc.nat(80), reopen: fc.boolean() });
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { minLength: 1, maxLength: 12 }), async (pieces) => {
        run += 1;
        const name = log(`law-${run}`);
        let store = await open({ totalBytes: 10_000_000 });
        for (const { back, length, reopen } of pieces) {
          if (reopen) store = await open({ totalBytes: 10_000_000 });
          const offset = Math.max(0, (store.size(name) ?? 0) - back);
          await store.write(name, offset, whole.subarray(offset, offset + length));
        }
        const size = store.size(name) ?? 0;
        const kept = size === 0 ? Buffer.alloc(0) : await store.read(name, 0, 1000);
        expect(kept.equals(whole.subarray(0, size))).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  it('keeps the beginning of a log that is too long, and says that it was cut, also after it is opened again', async () => {
    const store = await open({ maxBytes: 10 });
    expect(await store.write(log('a'), 0, Buffer.from('0123456'))).toBe(true);
    expect(await store.write(log('a'), 7, Buffer.from('789abc'))).toBe(false);
    expect(await text(store, 'a')).toBe('0123456789');
    expect(store.isTruncated(log('a'))).toBe(true);
    expect((await open()).isTruncated(log('a'))).toBe(true);
    expect(errors).toEqual([]);
  });

  it('gives up the log of an earlier attempt for that of the current one', async () => {
    const store = await open({ maxBytes: 10 });
    await store.write(log('a', 1), 0, Buffer.from('old.....'));
    await store.write(log('a', 2), 0, Buffer.from('new..'));
    expect(store.size(log('a', 1))).toBeUndefined();
    expect(store.newestAttempt('a')).toBe(2);
    expect(store.totalBytes).toBe(5);
    expect(await readdir(directoryOf(directory, log('a')))).toEqual(['2.log']);
  });

  it('removes the oldest finished logs to make room, and never one that is being written', async () => {
    const store = await open({ totalBytes: 30 });
    live.add('running');
    for (const uid of ['running', 'older', 'newer']) {
      await store.write(log(uid), 0, Buffer.from('.........'));
      clock.advance(1000);
    }
    live.add('next');
    expect(await store.write(log('next'), 0, Buffer.from('0123456789'))).toBe(true);
    expect(['running', 'older', 'newer', 'next'].map((uid) => store.size(log(uid)))).toEqual([
      9,
      undefined,
      9,
      10,
    ]);
    expect((await readdir(join(directory, 'ci'))).sort()).toEqual(['job-newer', 'job-next', 'job-running']);
    live.add('newer');
    // Nobody is left to go: what does not fit is not kept.
    expect(await store.write(log('next'), 10, Buffer.from('0123456789'))).toBe(false);
    expect(store.totalBytes).toBe(30);
    expect(store.isTruncated(log('next'))).toBe(true);
  });

  it('keeps the logs of one namespace however much another one writes', async () => {
    const store = await open({ totalBytes: 1_000 });
    await store.write(log('quiet'), 0, Buffer.alloc(100));
    clock.advance(1000);
    for (let count = 0; count < 50; count += 1) {
      const flood = { ...log(`flood-${count}`), namespace: 'flood' };
      await store.write(flood, 0, Buffer.alloc(100));
      clock.advance(1000);
    }
    expect(store.size(log('quiet'))).toBe(100);
    expect(store.totalBytes).toBe(1_000);
    // Nor by a log of a running job that grows without end.
    live.add('live');
    const live1 = { ...log('live'), namespace: 'flood' };
    for (let at = 0; at < 1_000; at += 100) await store.write(live1, at, Buffer.alloc(100));
    expect(store.size(log('quiet'))).toBe(100);
    expect(store.isTruncated(live1)).toBe(true);
  });

  it('keeps the logs of one namespace however many archives another one makes at once', async () => {
    const store = await open({ totalBytes: 1_000 });
    await store.write(log('quiet'), 0, Buffer.alloc(300));
    const drafts = [];
    for (let count = 0; count < 4; count += 1) {
      const draft = await store.beginArchive({ ...log(`a${count}`), namespace: 'flood' }, Buffer.alloc(10));
      drafts.push(draft);
      await draft?.write(Buffer.alloc(190));
    }
    expect(store.size(log('quiet'))).toBe(300);
    // What is given up counts no more: who has nothing may push out the one that has something.
    for (const draft of drafts) await draft?.discard();
    const draft = await store.beginArchive({ ...log('b'), namespace: 'other' }, Buffer.alloc(10));
    expect(await draft?.write(Buffer.alloc(280))).toBe(true);
    expect(await draft?.write(Buffer.alloc(600))).toBe(true);
    await draft?.publish();
    expect([store.size(log('quiet')), store.totalBytes]).toEqual([undefined, 890]);
  });

  it('evicts what is being read last', async () => {
    const store = await open({ totalBytes: 30 });
    for (const uid of ['a', 'b', 'c']) await store.write(log(uid), 0, Buffer.from('..........'));
    clock.advance(1000);
    await store.read(log('a'), 0, 1);
    await store.write(log('d'), 0, Buffer.from('..........'));
    expect(['a', 'b'].map((uid) => store.size(log(uid)))).toEqual([10, undefined]);
    clock.advance(60_000);
    await store.write(log('e'), 0, Buffer.from('..........'));
    expect(store.size(log('a'))).toBeUndefined();
  });

  it('never counts more than its total, whatever is written at once', async () => {
    const store = await open({ totalBytes: 500, maxBytes: 200 });
    const uids = Array.from({ length: 10 }, (_, index) => `u${index}`);
    for (const uid of uids) live.add(uid);
    await Promise.all(uids.map((uid) => store.write(log(uid), 0, Buffer.alloc(150))));
    expect(store.totalBytes).toBeLessThanOrEqual(500);
    const sizes = await Promise.all(
      uids.map(
        async (uid) =>
          (await stat(join(directoryOf(directory, log(uid)), '1.log')).catch(() => ({ size: 0 }))).size,
      ),
    );
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(store.totalBytes);
  });

  it('removes what belongs to no job any more', async () => {
    const store = await open();
    await store.write(log('here'), 0, Buffer.from('x'));
    await store.write(log('gone'), 0, Buffer.from('y'));
    await store.sweep(new Set(['here']));
    expect(store.size(log('gone'))).toBeUndefined();
    expect(await readdir(join(directory, 'ci'))).toEqual(['job-here']);
    expect(store.totalBytes).toBe(1);
  });

  it('takes no name that leads out of its directory', async () => {
    const store = await open();
    for (const evil of [
      { ...log('a'), name: '..' },
      { ...log('a'), namespace: '../..' },
      { ...log('a'), uid: '../x' },
      { ...log('a'), uid: '' },
      { ...log('a'), name: 'a/b' },
      { ...log('a'), name: 'a\0b' },
    ]) {
      expect(await store.write(evil, 0, Buffer.from('x'))).toBe(false);
    }
    expect(await readdir(directory)).toEqual([]);
  });

  it('survives a disk that does not take the bytes, and takes them later', async () => {
    const store = await open();
    // A file where a directory has to be: every write fails, as on a broken disk.
    await writeFile(join(directory, 'ci'), '');
    expect(await store.write(log('a'), 0, Buffer.from('abc'))).toBe(false);
    expect(errors).toHaveLength(1);
    expect(store.size(log('a'))).toBe(0);
    expect(store.totalBytes).toBe(0);
    await rm(join(directory, 'ci'));
    expect(await store.write(log('a'), 0, Buffer.from('abc'))).toBe(true);
    expect(await text(store, 'a')).toBe('abc');
  });

  it('shows an archive when it is whole, and counts it from its first byte', async () => {
    const store = await open();
    const draft = await store.beginArchive(log('a'), Buffer.from('end'));
    expect(await draft?.write(Buffer.from('12345'))).toBe(true);
    await draft?.cutTo(2);
    expect(store.totalBytes).toBe(5);
    expect(store.archiveSize(log('a'))).toBeUndefined();
    expect(await draft?.publish()).toBe(5);
    await draft?.discard();
    expect(store.archiveSize(log('a'))).toBe(5);
    expect((await store.readArchive(log('a'), 0, 100)).toString()).toBe('12end');
    const again = await open();
    expect([again.totalBytes, again.archivedAttempt('a'), again.size(log('a'))]).toEqual([5, 1, undefined]);
    expect(errors).toEqual([]);
  });

  it('has the whole of an archive or none when it is killed, and sweeps what was left of it', async () => {
    const store = await open();
    const kept = await store.beginArchive(log('a', 1), Buffer.from('end'));
    await kept?.publish();
    const lost = await store.beginArchive(log('a', 2), Buffer.from('end'));
    await lost?.write(Buffer.from('half'));
    expect(await readdir(directoryOf(directory, log('a')))).toHaveLength(2);
    const again = await open();
    expect(await readdir(directoryOf(directory, log('a')))).toEqual(['1.tar.gz']);
    expect(again.totalBytes).toBe(3);
  });

  it('keeps no more of an archive than its limits, and gives back the room of one that is given up', async () => {
    const store = await open({ maxArchiveBytes: 10, totalBytes: 12 });
    const draft = await store.beginArchive(log('a'), Buffer.from('end'));
    expect(await draft?.write(Buffer.from('1234567'))).toBe(true);
    expect(await draft?.write(Buffer.from('8'))).toBe(false);
    live.add('a');
    expect(await store.beginArchive(log('b'), Buffer.from('end'))).toBeUndefined();
    await draft?.discard();
    expect(store.totalBytes).toBe(0);
    expect(await readdir(directoryOf(directory, log('a')))).toEqual([]);
  });

  it('keeps the archive of the newest attempt only', async () => {
    const store = await open();
    for (const attempt of [1, 2, 2])
      await (await store.beginArchive(log('a', attempt), Buffer.from('end')))?.publish();
    expect(await readdir(directoryOf(directory, log('a')))).toEqual(['2.tar.gz']);
    expect([store.totalBytes, store.archivedAttempt('a')]).toEqual([3, 2]);
  });

  it('removes the archive with the logs of the job that finished first', async () => {
    const store = await open({ totalBytes: 30 });
    for (const uid of ['older', 'newer']) {
      await store.write(log(uid), 0, Buffer.from('....'));
      await (await store.beginArchive(log(uid), Buffer.from('......')))?.publish();
      clock.advance(1000);
    }
    live.add('next');
    const draft = await store.beginArchive(log('next'), Buffer.from('123456789012345'));
    expect(await draft?.publish()).toBe(15);
    expect(['older', 'newer', 'next'].map((uid) => store.archiveSize(log(uid)))).toEqual([undefined, 6, 15]);
    expect(store.totalBytes).toBe(25);
    expect((await readdir(join(directory, 'ci'))).sort()).toEqual(['job-newer', 'job-next']);
  });

  it('forgets an archive whose job is removed while it is made', async () => {
    const store = await open();
    const draft = await store.beginArchive(log('a'), Buffer.from('end'));
    await store.sweep(new Set());
    expect(await draft?.publish()).toBeUndefined();
    await draft?.discard();
    expect(store.totalBytes).toBe(0);
  });

  it('leaves files alone that are not its own, and a garbled note of what was cut', async () => {
    await mkdir(join(directory, 'lost+found', 'x', 'y z'), { recursive: true });
    await mkdir(directoryOf(directory, log('a')), { recursive: true });
    await writeFile(join(directoryOf(directory, log('a')), 'meta.json'), '{"trunc');
    await writeFile(join(directoryOf(directory, log('a')), '1.log'), 'abc');
    const store = await open();
    expect(store.size(log('a'))).toBe(3);
    expect(store.isTruncated(log('a'))).toBe(false);
    expect(await readFile(join(directoryOf(directory, log('a')), '1.log'), 'utf8')).toBe('abc');
    expect(await readdir(join(directory, 'lost+found', 'x'))).toEqual(['y z']);
  });

  it('wakes those who wait for a log', async () => {
    const store = await open();
    const woken = store.changed('a');
    await store.write(log('a'), 0, Buffer.from('x'));
    await woken;
    const touched = store.changed('a');
    store.touch('a');
    await touched;
  });
});
