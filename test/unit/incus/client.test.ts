import { describe, expect, it } from 'vitest';
import { IncusClient } from '../../../controller/incus/client.ts';
import type { HttpPipe, HttpReply, HttpRequest } from '../../../controller/incus/http.ts';

type Answer = Partial<Omit<HttpReply, 'body'>> & { body?: unknown };

/** A client whose requests are answered as the test says, by method and path without the query. */
function client(answers: Record<string, Answer> | Answer) {
  const sent: HttpRequest[] = [];
  const pipe = {
    request: (request: HttpRequest): Promise<HttpReply> => {
      sent.push(request);
      const key = `${request.method} ${request.path.split('?')[0]}`;
      const one = (answers as Record<string, Answer>)[key] ?? answers;
      const { status = 200, headers: got = {}, body }: Answer = one;
      const bytes = typeof body === 'string' ? body : JSON.stringify({ type: 'sync', metadata: body });
      return Promise.resolve({ status, headers: got, body: Buffer.from(bytes) });
    },
  };
  return { client: new IncusClient(pipe as unknown as HttpPipe, 'my project'), sent };
}
const error = (text: string) => JSON.stringify({ type: 'error', error: text, error_code: 1, metadata: null });

describe('an answer of Incus that is no success', () => {
  it.each([
    [400, 'Refused'],
    [401, 'Forbidden'],
    [403, 'Forbidden'],
    [404, 'NotFound'],
    [409, 'Conflict'],
    [412, 'Conflict'],
    [422, 'Refused'],
    [500, 'ServerError'],
    [503, 'ServerError'],
    [301, 'ServerError'],
  ])('by HTTP %i is %s, with what Incus said, and where', async (status, kind) => {
    const { client: one } = client({ status, body: error('it says so') });
    await expect(one.instance('i')).rejects.toMatchObject({
      name: 'IncusError',
      kind,
      status,
      message: '/1.0/instances/i: it says so',
    });
  });

  it('is told by its number where it says nothing that can be read', async () => {
    for (const body of ['<html>', '', error('')]) {
      await expect(client({ status: 502, body }).client.server()).rejects.toThrow('/1.0: HTTP 502');
    }
  });

  it('has its text cut', async () => {
    const failed = client({ status: 500, body: error('x'.repeat(5000)) }).client.server();
    expect(await failed.catch((one: unknown) => (one as Error).message.length)).toBe('/1.0: '.length + 1024);
  });
});

describe('an answer that cannot be read is Garbled', () => {
  it.each([
    ['no JSON', 'nonsense', /^GET \/1\.0\/instances\/i: /],
    ['no envelope', '{"name":"i"}', /type/],
    ['something of another shape, by the field', { name: 'i', type: 'jail', status: 'Running' }, /: type: /],
    ['nothing in it', undefined, /GET/],
  ])('%s', async (_what, body, message) => {
    const asked = client({ body }).client.instance('i');
    await expect(asked).rejects.toMatchObject({ kind: 'Garbled' });
    await expect(asked).rejects.toThrow(message);
  });
});

describe('what is asked', () => {
  it('is about the one project, by names that are quoted', async () => {
    const { client: one, sent } = client({ body: { name: 'a', type: 'container', status: 'Running' } });
    await one.instance('a/b');
    expect(sent[0]?.path).toBe('/1.0/instances/a%2Fb?project=my%20project');
  });

  it('is held for its size: more for lists than for one thing', async () => {
    const { client: one, sent } = client({ body: [] });
    await one.instances();
    await one.project().catch(() => undefined);
    const [list, single] = sent.map(({ maxBytes }) => maxBytes);
    expect([list, single]).toEqual([64 * 2 ** 20, 2 ** 20]);
  });

  it('brings operations of all statuses', async () => {
    const operation = (id: string) => ({ id, created_at: '', status: '', status_code: 103 });
    const body = { running: [operation('a')], success: [operation('b')] };
    expect((await client({ body }).client.operations()).map(({ id }) => id)).toEqual(['a', 'b']);
  });

  it('finds an image by its alias before it looks for a fingerprint', async () => {
    const alias = 'GET /1.0/images/aliases/dev';
    const image = 'GET /1.0/images/dev';
    const missing = { status: 404, body: error('not found') };
    const by = (answers: Record<string, Answer>) => client(answers).client.image('dev');
    const type = 'virtual-machine';
    expect(await by({ [alias]: { body: { target: 'abc', type } } })).toEqual({ fingerprint: 'abc', type });
    const found = { fingerprint: 'def', type };
    expect(await by({ [alias]: missing, [image]: { body: found } })).toEqual(found);
    await expect(by({ [alias]: missing, [image]: missing })).rejects.toMatchObject({ kind: 'NotFound' });
    await expect(by({ [alias]: { status: 500, body: '' } })).rejects.toMatchObject({ kind: 'ServerError' });
  });

  it('knows a profile that is missing from one that cannot be asked for', async () => {
    expect(await client({ body: {} }).client.hasProfile('p')).toBe(true);
    expect(await client({ status: 404, body: error('') }).client.hasProfile('p')).toBe(false);
    const forbidden = client({ status: 403, body: error('') }).client.hasProfile('p');
    await expect(forbidden).rejects.toMatchObject({ kind: 'Forbidden' });
  });
});

describe('a file of a guest', () => {
  const path = '/1.0/instances/i/files';
  const head = (headers: Record<string, string>, status = 200) => ({
    [`HEAD ${path}`]: { status, headers, body: '' },
  });
  const file = (size: number) => head({ 'x-incus-type': 'file', 'content-length': String(size) });
  const read = (
    answers: Record<string, Answer>,
    part: { first: number } | { last: number } = { first: 10 },
  ) => {
    const { client: one, sent } = client(answers);
    const asked = one.readFile('i', '/artifacts/result.json', part);
    return asked.then((found) => ({ found, methods: sent.map(({ method }) => method), sent }));
  };

  it('is read from its beginning or its end, no more than was asked for, and says how large it is', async () => {
    const answers = { ...file(99), [`GET ${path}`]: { status: 206, body: '0123456789' } };
    const first = await read(answers);
    expect(first.found).toEqual({ kind: 'file', size: 99, bytes: Buffer.from('0123456789') });
    expect(first.sent[1]).toMatchObject({ headers: { range: 'bytes=0-9' }, maxBytes: 10 });
    expect(first.sent[1]?.path).toContain('path=%2Fartifacts%2Fresult.json');
    const last = await read(answers, { last: 10 });
    expect(last.sent[1]).toMatchObject({ headers: { range: 'bytes=-10' }, maxBytes: 10 });
  });

  it('that grew while it was looked at is as large as what came', async () => {
    const answers = { ...file(2), [`GET ${path}`]: { status: 200, body: '01234' } };
    expect((await read(answers)).found).toMatchObject({ size: 5 });
  });

  it.each(['directory', 'symlink', 'fifo'])('is never opened when it is a %s', async (what) => {
    const { found, methods } = await read(head({ 'x-incus-type': what, 'content-length': '5' }));
    expect([found, methods]).toEqual([{ kind: 'unreadable', what }, ['HEAD']]);
  });

  it.each([
    ['has no content, as a FIFO shows', head({ 'x-incus-type': 'file', 'content-length': '0' })],
    ['does not say how large it is', head({ 'x-incus-type': 'file' })],
    ['says something impossible', head({ 'x-incus-type': 'file', 'content-length': 'many' })],
  ])('is not opened either when it %s', async (_what, answers) => {
    const { found, methods } = await read(answers);
    expect([found, methods]).toEqual([{ kind: 'file', size: 0, bytes: Buffer.alloc(0) }, ['HEAD']]);
  });

  it('is of a kind that nobody knows when Incus does not say', async () => {
    expect((await read(head({ 'content-length': '5' }))).found).toEqual({
      kind: 'unreadable',
      what: 'unknown',
    });
  });

  it('is missing, also when it goes between the two requests', async () => {
    expect((await read(head({}, 404))).found).toEqual({ kind: 'missing' });
    const gone = { ...file(5), [`GET ${path}`]: { status: 404, body: error('') } };
    expect((await read(gone)).found).toEqual({ kind: 'missing' });
  });

  it('that cannot be read is not missing', async () => {
    await expect(read(head({}, 500))).rejects.toMatchObject({ kind: 'ServerError', status: 500 });
    const failed = { ...file(5), [`GET ${path}`]: { status: 400, body: error('is a FIFO') } };
    await expect(read(failed)).rejects.toThrow('is a FIFO');
  });
});

it('whatever waits for a guest ends with the signal of the one who asks', async () => {
  const { client: one, sent } = client({ headers: { 'x-incus-type': 'file' }, body: {} });
  const { signal } = new AbortController();
  await one.openFile('i', '/artifacts/guest.log', 0, signal);
  await one.putEnvironment('i', new Map([['A', Buffer.from('b')]]), signal);
  await one.processes('i', signal).catch(() => undefined);
  expect(sent.map(({ method, signal: given }) => [method, given === signal])).toEqual([
    ['HEAD', true],
    ['POST', true],
    ['GET', true],
  ]);
});
