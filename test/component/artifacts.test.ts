import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../controller/clock.ts';
import { Artifacts, defaultLimits, timeLimit } from '../../controller/hosts/artifacts.ts';
import { maxDepth, maxNames } from '../../controller/hosts/artifact-walk.ts';
import type { LogSource } from '../../controller/hosts/live-logs.ts';
import { IncusClient } from '../../controller/incus/client.ts';
import { FairQueue, sharesOf } from '../../controller/incus/fair-queue.ts';
import { HttpPipe } from '../../controller/incus/http.ts';
import type { ArchiveSummary } from '../../controller/incus/outcome.ts';
import { LogStore } from '../../controller/logs/log-store.ts';
import { printable } from '../../controller/printable.ts';
import { filesIn, namesIn } from '../support/archives.ts';
import type { GuestEntry } from '../support/incus-sim/guest-files.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { clearAway } from '../support/left-under.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { SimBench, type BenchSpec } from '../support/sim-bench.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const file = (content: string): GuestEntry => ({ kind: 'file', content });

let directory: string;
beforeEach(async () => {
  directory = await makeTempDir('artifacts');
});
afterEach(() => clearAway(directory));

function openStore(maxArchiveBytes = 2 ** 20): Promise<LogStore> {
  return LogStore.open({
    directory: join(directory, 'kept'),
    maxBytes: 0,
    maxArchiveBytes,
    totalBytes: 2 ** 30,
    clock: systemClock,
    isLive: () => true,
    onError: () => undefined,
  });
}

describe('the artifacts of a guest', () => {
  let sim: IncusSim;
  let pipe: HttpPipe;
  let client: IncusClient;
  let store: LogStore;
  const source: LogSource = { instance: 'guest', namespace: 'ci', name: 'job', uid: 'uid-1', attempt: 1 };

  beforeEach(async () => {
    sim = new IncusSim();
    pipe = new HttpPipe(() => Promise.resolve(sim.connect()), { requests: 8, reads: 8 });
    client = new IncusClient(pipe, 'default');
    store = await openStore();
    const fingerprint = sim.store.addImage('image');
    await client.start({
      method: 'POST',
      path: '/1.0/instances',
      body: { name: 'guest', type: 'container', source: { type: 'image', fingerprint }, start: true },
    });
    await expect.poll(() => sim.instance('guest')?.power, { timeout: 10_000, interval: 5 }).toBe('Running');
  });
  afterEach(() => {
    pipe.close();
    sim.close();
  });

  const put = (entries: Record<string, GuestEntry>) => {
    for (const [path, entry] of Object.entries(entries))
      sim.instance('guest')?.guest.files.set(`/artifacts/${path}`, entry);
  };
  const keeper = (clock = systemClock) =>
    new Artifacts({ begin: (log, end) => store.beginArchive(log, end) }, clock);
  const collect = (...globs: string[]) => keeper().collect(turnsOf(4), client, source, globs);
  const archive = () => store.readArchive(source, 0, 2 ** 24);
  const said = (summary: ArchiveSummary): Record<string, string> =>
    Object.fromEntries(summary.notes.map(({ reason, message }) => [reason, message]));
  const asked = (method: string) =>
    sim.requests
      .of({ method })
      .filter(({ path }) => path.endsWith('/files'))
      .map(({ query }) => new URLSearchParams(query).get('path'));

  it('are exactly the files that match, byte for byte', async () => {
    const binary = Buffer.from(Array.from({ length: 100_000 }, (_, index) => (index * 7) % 256));
    put({
      'report.xml': file('<ok/>'),
      'report.txt': file('no'),
      'deep/er/report.xml': file('<deep/>'),
      'bin/tool': { kind: 'file', content: binary, uid: 1000, mode: '0755' },
    });
    const summary = await collect('**/*.xml', 'bin/*');
    const files = await filesIn(await archive());
    expect(files.map(({ name }) => name)).toEqual(['bin/tool', 'deep/er/report.xml', 'report.xml']);
    expect(files[0]?.content.equals(binary)).toBe(true);
    expect(files[0]?.header).toMatchObject({ mode: 0o644, uid: 0, gid: 0, type: 'file' });
    expect(files[2]?.content.toString()).toBe('<ok/>');
    const { length: bytes } = await archive();
    expect(summary).toEqual({ files: 3, bytes, skipped: 0, truncated: false, notes: [] });
  });

  it('are looked for only where one may be', async () => {
    put({ 'reports/a.xml': file('a'), 'target/debug/b': file('b'), 'c.xml': file('c') });
    await collect('reports/*.xml');
    expect(asked('HEAD')).toEqual(['/artifacts', '/artifacts/reports', '/artifacts/reports/a.xml']);
    expect(asked('GET')).toEqual(['/artifacts', '/artifacts/reports', '/artifacts/reports/a.xml']);
  });

  it('are no links, FIFOs or empty files, which are counted, and no FIFO is ever opened', async () => {
    put({
      'link.txt': { kind: 'symlink', target: '/etc/passwd' },
      linked: { kind: 'symlink', target: '/etc' },
      'fifo.txt': { kind: 'fifo' },
      'empty.txt': file(''),
      'real.txt': file('real'),
    });
    const summary = await collect('*.txt', 'linked/*');
    expect(summary).toMatchObject({ files: 1, skipped: 3, truncated: false });
    expect(said(summary)).toEqual({
      NotRegular:
        'left out 3: links, and files that are empty or no regular files: empty.txt, fifo.txt, link.txt',
      NoMatch: 'no file matches "linked/*"',
    });
    expect(await namesIn(await archive())).toEqual(['real.txt']);
    expect(sim.instance('guest')?.guest.files.stuck).toBe(false);
  });

  it('are none where /artifacts is no directory', async () => {
    sim.instance('guest')?.guest.files.set('/artifacts', { kind: 'symlink', target: '/etc' });
    const summary = await collect('**');
    expect(summary).toMatchObject({ files: 0, skipped: 0 });
    expect(said(summary)).toEqual({ NoMatch: 'no file matches "**"' });
    sim.instance('guest')?.guest.files.set('/artifacts', { kind: 'fifo' });
    expect(await collect('**')).toMatchObject({ files: 0 });
    expect(sim.instance('guest')?.guest.files.stuck).toBe(false);
  });

  it.each([
    ['steer a terminal', ['a\u001b[2Jb', 'new\nline', 'c1\u009b2J']],
    ['are shown in another order', ['gpj.\u202egnp', '\u2066x\u2069']],
    ['lead elsewhere', ['..', 'a/b', '..\\..\\x', 'C:x', 'c:']],
    ['are devices of Windows', ['CON', 'nul.txt', 'Aux .c', 'com1', 'LPT\u00b9.log', 'CONIN$']],
    ['lose their end on Windows', ['x.', 'x ', '.']],
    ['are no names', ['', 'bad\uFFFD', 'é'.repeat(200)]],
  ])('have no names that %s', async (_what, names) => {
    put({ good: file('good') });
    const guest = {
      stat: client.stat.bind(client),
      list: () => Promise.resolve([...names, 'good']),
      openRange: client.openRange.bind(client),
    };
    const summary = await keeper().collect(turnsOf(4), guest, source, ['**']);
    expect(summary).toMatchObject({ files: 1, skipped: names.length, truncated: false });
    expect(await namesIn(await archive())).toEqual(['good']);
    const { NameRefused = '' } = said(summary);
    expect(NameRefused).toMatch(
      new RegExp(`^left out ${names.length}: names that are not safe on every system: `),
    );
    // They are named, and cannot do there what they are refused for.
    expect(printable(NameRefused)).toBe(NameRefused);
  });

  it('may have any other name', async () => {
    const names = ['.hidden', '-rf', 'ab:c', 'con1', 'console', 'é', 'a b', 'x..y', '$HOME', 'COM0', 'c'];
    put(Object.fromEntries(names.map((name) => [name, file('x')])));
    expect(await collect('**')).toMatchObject({ files: names.length, notes: [] });
  });

  it('are all there where names differ only by case or accents, which is said', async () => {
    put({ 'a/README': file('1'), 'a/readme': file('2'), 'e\u0301': file('3'), '\u00e9': file('4') });
    const summary = await collect('**');
    expect(summary).toMatchObject({ files: 4 });
    expect(said(summary)).toEqual({
      NamesAlike: expect.stringMatching(
        /^differ from another file only by case .*: a\/readme, "é"$/,
      ) as string,
    });
  });

  it('keep the time at which they were changed; without one, or with one to come, that of now', async () => {
    const modified = '2024-02-29 12:30:45 +0000 UTC';
    put({
      a: { kind: 'file', content: 'a', modified },
      b: { kind: 'file', content: 'b', modified: '9999-01-01 00:00:00 +0000 UTC' },
      c: { kind: 'file', content: 'c', modified: 'yesterday' },
      d: { kind: 'file', content: 'd', modified: '1933-01-01 00:00:00 +0000 UTC' },
    });
    const clock = new ManualClock();
    await keeper(clock).collect(turnsOf(4), client, source, ['*']);
    const now = new Date(Math.floor(clock.now() / 1000) * 1000);
    const times = (await filesIn(await archive())).map(({ header }) => header.mtime);
    expect(times).toEqual([new Date('2024-02-29T12:30:45Z'), now, now, new Date(0)]);
  });

  it('are noted where a glob matches none of them, with what may have been meant', async () => {
    put({ 'reports/u.xml': file('<x/>'), 'reports/deep/v.xml': file('<x/>'), 'a.txt': file('a') });
    const globs = ['./reports/*.xml', 'reports/', 'reports', './/reports/./deep', '*.log', '.', 'a.txt'];
    const summary = await collect(...globs);
    expect(await namesIn(await archive())).toEqual(['a.txt', 'reports/u.xml']);
    expect(said(summary)).toEqual({
      NoMatch: [
        'no file matches reports/ (a directory; "reports/**" is all that is in it)',
        'reports (a directory; "reports/**" is all that is in it)',
        './/reports/./deep (a directory; "reports/deep/**" is all that is in it)',
        '"*.log"',
        '. (a directory; "**" is all that is in it)',
      ].join(', '),
    });
  });

  it('name only the first of many globs that match nothing', async () => {
    const summary = await collect(...range(32).map((at) => `no-${at}-${'x'.repeat(240)}`));
    expect(said(summary)['NoMatch']).toMatch(/^no file matches no-0-x+…, .* and 27 more$/);
    expect(said(summary)['NoMatch']?.length).toBeLessThan(1024);
  });

  it("are not the runner's own files, unless one is named", async () => {
    put({ 'guest.log': file('log'), 'result.json': file('{}'), 'sub/guest.log': file('mine') });
    await collect('**');
    expect(await namesIn(await archive())).toEqual(['sub/guest.log']);
    await collect('**', 'result.json');
    expect(await namesIn(await archive())).toEqual(['result.json', 'sub/guest.log']);
  });

  it('end with the last whole file where a limit is reached, and say so', async () => {
    store = await openStore(600);
    put({ 'a.txt': file('a'), 'b.txt': file(noise(5_000)), 'c.txt': file('c') });
    const summary = await collect('**');
    expect(summary).toMatchObject({ files: 1, truncated: true });
    expect(summary.bytes).toBeLessThanOrEqual(600);
    expect(said(summary)).toEqual({
      ArchiveFull: 'left out 2: files for which the archive had no more room: b.txt, c.txt',
    });
    expect(await namesIn(await archive())).toEqual(['a.txt']);
  });

  it.each([
    [
      'levels',
      () => ({ [`${'d/'.repeat(maxDepth)}deep`]: file('x'), [`${'d/'.repeat(maxDepth - 1)}ok`]: file('x') }),
      1,
      { DepthLimit: /^left out 1: directories too deep within others: (d\/)+d$/ },
    ],
    [
      'bytes before they are compressed',
      () => ({ a: file('x'), b: { kind: 'zeros', size: 2 ** 40 } as const, c: file('x') }),
      2,
      { SizeLimit: /^left out 1: files for which too few bytes were left before compression: b$/ },
    ],
  ])('stop at so many %s', { timeout: 60_000 }, async (_what, entries, kept, note) => {
    put(entries());
    const summary = await collect('**');
    expect(summary).toMatchObject({ files: kept, truncated: true });
    expect(await namesIn(await archive())).toHaveLength(kept);
    for (const [reason, message] of Object.entries(note)) expect(said(summary)[reason]).toMatch(message);
  });

  it('stop at so many files', async () => {
    put({ a: file('a'), b: file('b'), c: file('c') });
    const begin = (log: LogSource, end: Buffer) => store.beginArchive(log, end);
    const few = new Artifacts({ begin }, systemClock, { ...defaultLimits, files: 2 });
    put({ d: file('d'), e: file('e'), f: file('f'), 'z.xml': file('z') });
    const summary = await few.collect(turnsOf(4), client, source, ['**', '*.xml', '*.log']);
    expect(summary).toMatchObject({ files: 2, skipped: 0, truncated: true });
    expect(await namesIn(await archive())).toEqual(['a', 'b']);
    expect(said(summary)).toEqual({
      FileLimit: 'left out 5: files beyond the limit of their number: c, d, e and 2 more',
      NoMatch: 'no file matches "*.log"',
    });
  });

  it('stop at so many names in a directory', async () => {
    const list = () => Promise.resolve(range(maxNames + 1).map((at) => `x${at}`));
    const guest = {
      list,
      stat: (_instance: string, path: string) =>
        Promise.resolve({ type: path === '/artifacts' ? 'directory' : 'symlink', size: 0 }),
      openRange: () => Promise.resolve(undefined),
    };
    const summary = await keeper().collect(turnsOf(4), guest, source, ['**']);
    expect(summary).toMatchObject({ files: 0, skipped: maxNames, truncated: true });
    expect(said(summary)['NameLimit']).toMatch(
      /^left out 1: directories with too many names.*: \/artifacts$/,
    );
  });

  it('hold nothing of a file that changes while it is read, and go on', async () => {
    put({ a: file('a'), b: file('bbbb'), c: file('c') });
    const guest = {
      stat: client.stat.bind(client),
      list: client.list.bind(client),
      openRange: async (...args: Parameters<IncusClient['openRange']>) => {
        const body = await client.openRange(...args);
        // The answer promises more than comes, as when a file shrinks under the reader.
        if (args[1].endsWith('/b') && body) body.headers['content-length'] = '9';
        return body;
      },
    };
    const summary = await keeper().collect(turnsOf(4), guest, source, ['*']);
    expect(summary).toMatchObject({ files: 2, skipped: 1 });
    expect(said(summary)).toEqual({ Changed: 'left out 1: files that changed while they were read: b' });
    expect(await namesIn(await archive())).toEqual(['a', 'c']);
  });

  it('are left after a few tries, and leave nothing half-made', async () => {
    put({ a: file('a') });
    const artifacts = keeper();
    const once = () => artifacts.collect(turnsOf(4), client, source, ['**']);
    sim.kill();
    await expect(once()).rejects.toThrow();
    await expect(once()).rejects.toThrow();
    expect(await once()).toMatchObject({ files: 0, bytes: 0, notes: [{ reason: 'NotRead' }] });
    expect(await readdir(join(directory, 'kept', 'ci', 'job', 'uid-1'))).toEqual([]);
    expect(store.totalBytes).toBe(0);
    await sim.restart();
    pipe = new HttpPipe(() => Promise.resolve(sim.connect()), { requests: 8, reads: 8 });
    client = new IncusClient(pipe, 'default');
    artifacts.forget('guest');
    expect(await once()).toMatchObject({ files: 1 });
  });

  it('take no more than their time: what there was time for is kept', async () => {
    put({ a: file('a'), b: file('b') });
    const clock = new ManualClock();
    sim.faults.each = ({ method, query }) =>
      method === 'GET' && query.get('path') === '/artifacts/b' ? { kind: 'hang' } : undefined;
    const collecting = keeper(clock).collect(turnsOf(4), client, source, ['*']);
    await expect.poll(() => asked('GET'), { timeout: 10_000, interval: 5 }).toContain('/artifacts/b');
    clock.advance(timeLimit);
    const summary = await collecting;
    expect(summary).toMatchObject({ files: 1, truncated: true });
    expect(said(summary)).toEqual({
      TimeLimit: 'the time for artifacts was over before all were looked at',
    });
    expect(await namesIn(await archive())).toEqual(['a']);
  });

  it('wait until it is their turn, but no longer than their time', async () => {
    put({ a: file('a') });
    const clock = new ManualClock();
    const artifacts = keeper(clock);
    const turns = turnsOf(1);
    const { promise: another, resolve: over } = Promise.withResolvers<undefined>();
    void turns.add({ group: 'other', member: 'other' }, () => another);
    const tooLong = artifacts.collect(turns, client, { ...source, instance: 'another' }, ['*']);
    clock.advance(1);
    const inTime = artifacts.collect(turns, client, source, ['*']);
    clock.advance(timeLimit - 1);
    expect(await tooLong).toMatchObject({ files: 0, bytes: 0, notes: [{ reason: 'TimeLimit' }] });
    expect(asked('HEAD')).toEqual([]);
    over(undefined);
    expect(await inTime).toMatchObject({ files: 1 });
    expect(asked('HEAD')).not.toEqual([]);
  });

  it('are none where the archive cannot be kept, which is said', async () => {
    put({ a: file('a') });
    const noted = { files: 0, bytes: 0, notes: [{ reason: 'NotKept' }] };
    store = await openStore(10);
    expect(await collect('*')).toMatchObject(noted);
    // Its disk fails at the very end.
    store = await openStore();
    const begin = async (log: LogSource, end: Buffer) => {
      const draft = await store.beginArchive(log, end);
      await rm(join(directory, 'kept', 'ci', 'job', 'uid-1'), { recursive: true });
      return draft;
    };
    const failing = new Artifacts({ begin }, systemClock);
    expect(await failing.collect(turnsOf(4), client, source, ['*'])).toMatchObject(noted);
  });
});

describe('a job with artifacts', () => {
  const guest = (job: object) => ({ files: { '/artifacts/out/a': file('kept') }, job: { runMs: 3, ...job } });
  let bench: SimBench;
  let store: LogStore;

  async function play(job: object, spec: BenchSpec, user?: 'cancel' | 'delete') {
    store = await openStore();
    const keep = () => new Artifacts({ begin: (log, end) => store.beginArchive(log, end) }, systemClock);
    bench = await SimBench.start(join(directory, 'incus.sock'), guest(job), 4, { artifacts: keep });
    const key = bench.create('job', { artifacts: ['out/*'], ...spec });
    if (user) {
      await expect
        .poll(() => bench.sim.names().map((name) => bench.sim.runs(name)), { timeout: 10_000 })
        .toEqual([1]);
      if (user === 'cancel') bench.api.change(key, { cancel: true });
      else bench.api.delete(key, Date.now());
    }
    await bench.settled();
    return bench.api.history.get('uid-job')?.at(-1);
  }
  afterEach(() => bench.close());

  const listings = () =>
    bench.sim.requests
      .of({ method: 'GET' })
      .filter(({ query }) => query.includes(encodeURIComponent('/artifacts/out')));
  const kept = async () => {
    const path = join(directory, 'kept', 'default', 'job', 'uid-job', '1.tar.gz');
    return filesIn(await readFile(path));
  };

  it.each<[string, object, BenchSpec, ('cancel' | undefined)?]>([
    ['succeeds', {}, {}],
    ['fails', { exitCode: 3 }, {}],
    ['runs out of time', { runMs: Infinity }, { timeoutSeconds: 1 }],
    ['is cancelled', { runMs: Infinity }, {}, 'cancel'],
  ])('keeps them when it %s', async (_how, job, spec, user) => {
    const status = await play(job, spec, user);
    expect(status?.artifacts).toMatchObject({ files: 1, skipped: 0, truncated: false });
    expect(await kept()).toMatchObject([{ name: 'out/a', content: Buffer.from('kept') }]);
  });

  it('asks for none when it is deleted, or names none', async () => {
    await play({ runMs: Infinity }, {}, 'delete');
    expect(listings()).toEqual([]);
    await bench.close();
    const status = await play({}, { artifacts: [] });
    expect(status).toMatchObject({ phase: 'Succeeded' });
    expect(status?.artifacts).toBeUndefined();
    expect(listings()).toEqual([]);
  });

  it('says so when there is no place for them', async () => {
    bench = await SimBench.start(join(directory, 'incus.sock'), guest({}), 4);
    bench.create('job', { artifacts: ['out/*'] });
    await bench.settled();
    expect(bench.api.history.get('uid-job')?.at(-1)).toMatchObject({
      phase: 'Succeeded',
      artifacts: { files: 0, bytes: 0, notes: [{ reason: 'NoPlace' }] },
    });
  });

  it('ends as it would without them when they cannot be read', { timeout: 30_000 }, async () => {
    store = await openStore();
    const keep = () => new Artifacts({ begin: (log, end) => store.beginArchive(log, end) }, systemClock);
    bench = await SimBench.start(join(directory, 'incus.sock'), guest({ exitCode: 7 }), 4, {
      artifacts: keep,
    });
    bench.sim.faults.each = ({ method, query }) =>
      method === 'GET' && query.get('path') === '/artifacts'
        ? { kind: 'answer', status: 500, body: '{}' }
        : undefined;
    bench.create('job', { artifacts: ['out/*'] });
    await bench.settled(25_000);
    const status = bench.api.history.get('uid-job')?.at(-1);
    expect(status).toMatchObject({ phase: 'Failed', exitCode: 7, failure: { class: 'Test' } });
    expect(status?.artifacts).toMatchObject({ files: 0, bytes: 0, notes: [{ reason: 'NotRead' }] });
  });

  it(
    'keeps whole ones when the controller is killed at any request of reading them',
    { timeout: 60_000 },
    async () => {
      store = await openStore();
      const keep = () => new Artifacts({ begin: (log, end) => store.beginArchive(log, end) }, systemClock);
      bench = await SimBench.start(join(directory, 'incus.sock'), guest({}), 4, { artifacts: keep });
      for (const [index, when] of (['before', 'after'] as const).flatMap((one) =>
        [0, 1, 2, 3, 4].map((at) => [at, one] as const),
      )) {
        let left = index;
        const { sim } = bench;
        const each = sim.faults.each;
        sim.faults.each = (request) => {
          const about = request.query.get('path') ?? '';
          if (!/^\/artifacts(\/(out.*)?)?$/.test(about) || left-- !== 0) return undefined;
          queueMicrotask(() => void bench.replaceController());
          return { kind: 'drop', when };
        };
        const name = `job-${when}-${index}`;
        bench.create(name, { artifacts: ['out/*'] });
        await bench.settled();
        sim.faults.each = each;
        expect(bench.api.history.get(`uid-${name}`)?.at(-1)?.artifacts).toMatchObject({ files: 1 });
        const path = join(directory, 'kept', 'default', name, `uid-${name}`);
        expect(await readdir(path)).toContain('1.tar.gz');
        expect(await namesIn(await readFile(join(path, '1.tar.gz')))).toEqual(['out/a']);
      }
    },
  );
});

function turnsOf(count: number): FairQueue {
  return new FairQueue(sharesOf(count));
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/** Text that hardly gets smaller, the same each time. */
function noise(length: number): string {
  let seed = 1;
  return range(length)
    .map(() => {
      seed = (seed * 48271) % 2147483647;
      return String.fromCharCode(33 + (seed % 90));
    })
    .join('');
}
