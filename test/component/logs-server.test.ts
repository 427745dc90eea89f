import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, writeFile } from 'node:fs/promises';
import { request as httpsRequest } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { connect as tlsConnect } from 'node:tls';
import { readFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CiJob } from '../../controller/api/cijob.ts';
import { systemClock } from '../../controller/clock.ts';
import { AccessReview, believedFor } from '../../controller/kube/access-review.ts';
import { KubeClient } from '../../controller/kube/client.ts';
import type { AuditEntry } from '../../controller/kube/audit-trail.ts';
import type { ServedLogs } from '../../controller/kube/log-answer.ts';
import { serveLogs, type LogServer } from '../../controller/kube/log-server.ts';
import { Transport } from '../../controller/kube/transport.ts';
import { LogStore } from '../../controller/logs/log-store.ts';
import { issueCertificate, makeAuthority, type KeyPair } from '../support/certificates.ts';
import { answer, FakeApiServer, refuse } from '../support/fake-api-server.ts';
import { clearAway } from '../support/left-under.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const program = join(import.meta.dirname, '../../controller/main.ts');
const path = '/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/job/log';
const log = { namespace: 'ci', name: 'job', uid: 'uid-1', attempt: 1 };

describe('the log server', () => {
  let certificates: string;
  let authority: KeyPair;
  let ca: string;
  let first: KeyPair;
  let second: KeyPair;

  let directory: string;
  let files: KeyPair;
  let api: FakeApiServer;
  let transport: Transport;
  let clock: ManualClock;
  let store: LogStore;
  let server: LogServer;
  let job: CiJob | undefined;
  let leading: boolean;
  let errors: string[];
  let readByServer: number;
  /** What is recorded of those who read. */
  let audit: AuditEntry[];
  let unrecordable: boolean;
  /** Who may read, by token. */
  let allowed: Record<string, boolean>;

  beforeAll(async () => {
    certificates = await makeTempDir('certs');
    authority = await makeAuthority(certificates);
    ca = await readFile(authority.certificate, 'utf8');
    const addresses = ['127.0.0.1'];
    first = await issueCertificate(authority, { dir: certificates, name: 'first', user: 'first', addresses });
    second = await issueCertificate(authority, {
      dir: certificates,
      name: 'second',
      user: 'second',
      addresses,
    });
  });
  afterAll(() => clearAway(certificates));

  beforeEach(async () => {
    directory = await makeTempDir('served');
    files = { certificate: join(directory, 'tls.crt'), key: join(directory, 'tls.key') };
    await install(first);
    api = await FakeApiServer.start();
    allowed = { reader: true, viewer: false };
    api.fault = (request, response) => {
      const { spec } = request.body as { spec: { token?: string; user?: string } };
      if (request.path.endsWith('/tokenreviews')) {
        const known = spec.token !== undefined && spec.token in allowed;
        const user = { username: spec.token, groups: ['system:authenticated'] };
        return answer(response, 201, {
          status: known ? { authenticated: true, user } : { authenticated: false },
        });
      }
      return answer(response, 201, { status: { allowed: allowed[spec.user ?? ''] ?? false } });
    };
    clock = new ManualClock();
    transport = new Transport({ config: api.kubeConfig(), clock: systemClock, userAgent: 'test/1' });
    store = await LogStore.open({
      directory: join(directory, 'logs'),
      maxBytes: 64 * 2 ** 20,
      maxArchiveBytes: 64 * 2 ** 20,
      totalBytes: 2 ** 30,
      clock,
      isLive: () => true,
      onError: (what) => errors.push(what),
    });
    job = running();
    leading = true;
    errors = [];
    readByServer = 0;
    audit = [];
    unrecordable = false;
    const served: ServedLogs = {
      job: (namespace, name) => (namespace === 'ci' && name === 'job' ? job : undefined),
      size: (one) => store.size(one),
      newestAttempt: (uid) => store.newestAttempt(uid),
      isTruncated: (one) => store.isTruncated(one),
      isLive: (one) => job?.metadata.uid === one.uid && job.status?.completionTime === undefined,
      read: async (...args) => {
        const piece = await store.read(...args);
        readByServer += piece.length;
        return piece;
      },
      changed: (uid) => store.changed(uid),
      artifacts: {
        size: (one) => store.archiveSize(one),
        attempt: (uid) => store.archivedAttempt(uid),
        read: (...args) => store.readArchive(...args),
      },
    };
    server = await serveLogs({
      listen: { host: '127.0.0.1', port: 0 },
      files,
      clock,
      review: new AccessReview(new KubeClient(transport), clock),
      logs: () => (leading ? served : undefined),
      shells: () => undefined,
      trail: {
        record(entry) {
          if (unrecordable) throw new Error('no space left');
          audit.push(entry);
        },
      },
      onError: (what) => errors.push(what),
    });
  });
  afterEach(async () => {
    await server.close();
    transport.close();
    await api.stop();
    await clearAway(directory);
  });

  async function install(pair: KeyPair): Promise<void> {
    await copyFile(pair.certificate, files.certificate);
    await copyFile(pair.key, files.key);
  }

  function running(status: Partial<NonNullable<CiJob['status']>> = {}, uid = 'uid-1'): CiJob {
    return CiJob.parse({
      apiVersion: 'ci.pikaci.dev/v1alpha1',
      kind: 'CiJob',
      metadata: { name: 'job', namespace: 'ci', uid, creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: { command: 'true', instance: { image: 'image' } },
      status: { phase: 'Running', attempt: 1, ...status },
    });
  }
  const over = (bytes: number) =>
    running({ phase: 'Succeeded', completionTime: '2026-01-01T00:01:00Z', log: { bytes, truncated: false } });

  function open(
    target = path,
    token: string | undefined = 'reader',
    method = 'GET',
  ): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const headers = token === '' ? {} : { authorization: `Bearer ${token}` };
      const request = httpsRequest(
        { host: '127.0.0.1', port: server.port, path: target, method, ca, headers, agent: false },
        resolve,
      );
      request.once('error', reject);
      request.end();
    });
  }

  async function read(stream: IncomingMessage): Promise<string> {
    let text = '';
    for await (const chunk of stream.setEncoding('utf8') as AsyncIterable<string>) text += chunk;
    return text;
  }

  async function refused(...args: Parameters<typeof open>) {
    const reply = await open(...args);
    const body = JSON.parse(await read(reply)) as {
      kind: string;
      code: number;
      reason: string;
      message: string;
    };
    expect(body.kind).toBe('Status');
    expect(body.code).toBe(reply.statusCode);
    return { code: body.code, reason: body.reason, message: body.message, headers: reply.headers };
  }

  async function until(holds: () => boolean): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!holds()) {
      if (performance.now() > deadline) throw new Error('not within 10 s');
      await delay(5);
    }
  }

  it('gives a log out, from an offset on too', async () => {
    await store.write(log, 0, Buffer.from('one\ntwo\n'));
    job = over(8);
    const reply = await open();
    expect(reply.statusCode).toBe(200);
    expect(reply.headers).toMatchObject({ 'x-cijob-uid': 'uid-1', 'x-cijob-attempt': '1' });
    expect(await read(reply)).toBe('one\ntwo\n');
    expect(await read(await open(`${path}?offset=4`))).toBe('two\n');
    expect(await read(await open(`${path}?offset=8`))).toBe('');
    expect((await refused(`${path}?offset=9`)).code).toBe(416);
  });

  it('sends what is written while somebody follows, and ends when the job is over', async () => {
    const reply = await open(`${path}?follow=true`);
    let text = '';
    reply.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    const ended = new Promise((resolve) => reply.once('end', resolve));
    await store.write(log, 0, Buffer.from('one\n'));
    await until(() => text === 'one\n');
    await store.write(log, 4, Buffer.from('two\n'));
    await until(() => text === 'one\ntwo\n');
    await store.write(log, 8, Buffer.from('three\n'));
    job = over(14);
    store.touch('uid-1');
    await ended;
    expect(text).toBe('one\ntwo\nthree\n');
    expect(reply.complete).toBe(true);
  });

  it('keeps little of a large log in memory for a reader that is slow', async () => {
    const size = 32 * 2 ** 20;
    await store.write(log, 0, Buffer.alloc(size, 'x'));
    job = over(size);
    let bytes = 0;
    let ahead = 0;
    for await (const chunk of (await open()) as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      ahead = Math.max(ahead, readByServer - bytes);
      // Slower than a disk.
      await nextTurn();
    }
    // What lies between is in the buffers of the two sockets.
    expect(ahead).toBeLessThan(size / 2);
    expect(bytes).toBe(size);
  });

  it('tells who may not read why, as a Status', async () => {
    await store.write(log, 0, Buffer.from('secret'));
    const none = await refused(path, '');
    expect(none).toMatchObject({ code: 401, reason: 'Unauthorized' });
    expect(none.headers['www-authenticate']).toBe('Bearer');
    expect(await refused(path, 'nobody')).toMatchObject({ code: 401, reason: 'Unauthorized' });
    expect(await refused(path, 'viewer')).toMatchObject({
      code: 403,
      reason: 'Forbidden',
      message: expect.stringContaining('User "viewer" cannot get resource "cijobs/log"') as string,
    });
    // Nobody learns which jobs there are by asking.
    expect((await refused(path.replace('/job/', '/other/'), 'viewer')).code).toBe(403);
  });

  it('asks the cluster for exactly the right to get that log', async () => {
    await store.write(log, 0, Buffer.from('x'));
    await read(await open(`${path}?follow=false`));
    const review = api.requests.find((request) => request.path.endsWith('/subjectaccessreviews'));
    expect(review?.body).toMatchObject({
      spec: {
        user: 'reader',
        groups: ['system:authenticated'],
        resourceAttributes: {
          verb: 'get',
          group: 'ci.pikaci.dev',
          version: 'v1alpha1',
          resource: 'cijobs',
          subresource: 'log',
          namespace: 'ci',
          name: 'job',
        },
      },
    });
  });

  it('believes the cluster for a few seconds, and no longer', async () => {
    await store.write(log, 0, Buffer.from('x'));
    await Promise.all([open(), open(), open()].map(async (reply) => read(await reply)));
    expect(api.requests).toHaveLength(2);
    allowed['reader'] = false;
    clock.advance(believedFor);
    expect((await refused()).code).toBe(403);
  });

  it('stops sending to whom the right is taken away', async () => {
    await store.write(log, 0, Buffer.from('x'));
    const reply = await open(`${path}?follow=true`);
    let broken: unknown;
    reply.once('error', (error) => (broken = error));
    reply.resume();
    delete allowed['reader'];
    await until(() => {
      clock.advance(10_000);
      return broken !== undefined;
    });
    expect(broken).toMatchObject({ code: 'ECONNRESET' });
  });

  it('stops sending to whom the right is taken away while they are behind with reading', async () => {
    const size = 64 * 2 ** 20;
    await store.write(log, 0, Buffer.alloc(size, 'x'));
    job = over(size);
    const reply = await open();
    let bytes = 0;
    // Sockets and streams hold some of it; the rest waits for the reader.
    await until(() => readByServer > 0);
    delete allowed['reader'];
    clock.advance(60_000);
    const broken = await new Promise((resolve) => {
      reply.once('error', resolve);
      reply.once('end', () => resolve('sent to the end'));
      reply.on('data', (chunk: Buffer) => (bytes += chunk.length));
    });
    expect(broken).toMatchObject({ code: 'ECONNRESET' });
    expect(bytes).toBeLessThan(size);
  });

  it('lets everybody in whom the cluster knows while bad tokens come from the same address', async () => {
    await store.write(log, 0, Buffer.from('x'));
    job = over(1);
    const asked: Promise<number>[] = [];
    for (let index = 0; index < 60; index += 1) {
      allowed[`reader-${index}`] = true;
      for (const guess of ['a', 'b'])
        asked.push(refused(path, `guess-${index}-${guess}`).then(({ code }) => code));
      expect((await open(path, `reader-${index}`)).statusCode).toBe(200);
    }
    expect(new Set(await Promise.all(asked))).toEqual(new Set([401]));
  });

  it('asks the cluster about a few tokens at once, and holds nobody up whom it knew a moment ago', async () => {
    await store.write(log, 0, Buffer.from('x'));
    job = over(1);
    expect((await open()).statusCode).toBe(200);
    clock.advance(believedFor);
    const answers = api.fault;
    const held: (() => void)[] = [];
    api.fault = (request, response) => {
      const { spec } = request.body as { spec: { token?: string } };
      if (!spec.token?.startsWith('guess')) return answers(request, response);
      held.push(() => answers(request, response));
      return true;
    };
    const guesses = Array.from({ length: 20 }, (_, index) => refused(path, `guess-${index}`));
    await until(() => held.length === 4);
    expect((await open()).statusCode).toBe(200);
    expect(held).toHaveLength(4);
    for (let index = 0; index < 20; index += 1) {
      await until(() => held.length > index);
      held[index]?.();
    }
    expect((await Promise.all(guesses)).map(({ code }) => code)).toEqual(Array<number>(20).fill(401));
  });

  it('answers one user only so many requests a second', async () => {
    await store.write(log, 0, Buffer.from('x'));
    job = over(1);
    const codes = new Map<number | undefined, number>();
    for (let index = 0; index < 110; index += 1) {
      const { statusCode } = await open();
      codes.set(statusCode, (codes.get(statusCode) ?? 0) + 1);
    }
    expect([...codes]).toEqual([
      [200, 100],
      [429, 10],
    ]);
    clock.advance(50);
    expect((await open()).statusCode).toBe(200);
  });

  it('says what there is not, and what there is no more', async () => {
    expect(await refused()).toMatchObject({
      code: 404,
      message: expect.stringContaining('no log yet') as string,
    });
    expect(await refused(path.replace('/job/', '/other/'))).toMatchObject({ code: 404, reason: 'NotFound' });
    expect(await refused('/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/../log')).toMatchObject({
      code: 404,
    });
    job = over(5);
    expect(await refused()).toMatchObject({ code: 410, reason: 'Gone' });
    await store.write(log, 0, Buffer.from('12345'));
    expect(await refused(`${path}?uid=another`)).toMatchObject({ code: 410, reason: 'Gone' });
    expect(await refused(`${path}?attempt=7`)).toMatchObject({ code: 410, reason: 'Gone' });
    expect(await refused(`${path}?offset=-1`)).toMatchObject({ code: 400, reason: 'BadRequest' });
    expect(await refused(`${path}?follow=perhaps`)).toMatchObject({ code: 400 });
    expect(await refused(path, 'reader', 'DELETE')).toMatchObject({ code: 405 });
  });

  it('sends to the one who leads, and waits for a cluster that does not answer', async () => {
    leading = false;
    const elsewhere = await refused();
    expect(elsewhere.code).toBe(503);
    expect(elsewhere.headers['retry-after']).toBe('5');
    leading = true;
    clock.advance(believedFor);
    api.fault = (_request, response) => refuse(response, 500, 'InternalError');
    expect((await refused()).code).toBe(503);
    expect(errors).toEqual(['log request']);
    // What could not be answered is asked again, not remembered.
    api.fault = (request, response) =>
      request.path.endsWith('/tokenreviews')
        ? answer(response, 201, { status: { authenticated: true, user: { username: 'reader' } } })
        : answer(response, 201, { status: { allowed: true } });
    await store.write(log, 0, Buffer.from('x'));
    expect((await open()).statusCode).toBe(200);
  });

  it('gives the archive of artifacts out, from an offset on too, when the job is over', async () => {
    const target = path.replace(/log$/, 'artifacts');
    const bytes = Buffer.alloc(300_000, 'x');
    expect(await refused(target)).toMatchObject({
      code: 404,
      message: expect.stringContaining('no artifacts yet') as string,
    });
    const draft = await store.beginArchive(log, Buffer.from('end'));
    await draft?.write(bytes);
    await draft?.publish();
    expect((await refused(target)).code).toBe(404);
    job = over(0);
    const reply = await open(target);
    expect(reply.headers).toMatchObject({
      'content-type': 'application/gzip',
      'content-length': '300003',
      'x-cijob-uid': 'uid-1',
      'x-cijob-attempt': '1',
    });
    expect(await read(reply)).toBe(`${bytes.toString()}end`);
    expect(await read(await open(`${target}?offset=299998&attempt=1&uid=uid-1`))).toBe('xxend');
    expect(await read(await open(`${target}?offset=300003`))).toBe('');
    expect((await refused(`${target}?offset=300004`)).code).toBe(416);
    expect((await refused(`${target}?attempt=2`)).code).toBe(410);
    expect((await refused(`${target}?uid=other`)).code).toBe(410);
    await store.sweep(new Set());
    expect(await refused(target)).toMatchObject({ code: 404, reason: 'NotFound' });
    job.status = { ...job.status, artifacts: { files: 1, bytes: 3, skipped: 0, truncated: false } };
    expect(await refused(target)).toMatchObject({ code: 410, reason: 'Gone' });
    const notes = [{ reason: 'NotKept', message: 'the archive could not be written' }];
    job.status = { ...job.status, artifacts: { files: 0, bytes: 0, skipped: 0, truncated: false, notes } };
    job.spec.artifacts = ['x'];
    expect(await refused(target)).toMatchObject({
      code: 404,
      message: expect.stringContaining('has no artifacts: the archive could not be written') as string,
    });
  });

  it('gives artifacts only to whom RBAC lets get cijobs/artifacts', async () => {
    const target = path.replace(/log$/, 'artifacts');
    expect((await refused(target, '')).code).toBe(401);
    expect(await refused(target, 'viewer')).toMatchObject({
      code: 403,
      message: expect.stringContaining('cannot get resource "cijobs/artifacts"') as string,
    });
    const reviews = api.requests.filter((request) => request.path.endsWith('/subjectaccessreviews'));
    expect(reviews.at(-1)?.body).toMatchObject({
      spec: {
        user: 'viewer',
        resourceAttributes: { verb: 'get', resource: 'cijobs', subresource: 'artifacts' },
      },
    });
  });

  it('lets one reader open only so many logs at once', async () => {
    await store.write(log, 0, Buffer.from('x'));
    const replies = await Promise.all(Array.from({ length: 33 }, () => open(`${path}?follow=true`)));
    expect(replies.map((reply) => reply.statusCode).sort()).toEqual([...Array<number>(32).fill(200), 429]);
    for (const reply of replies) reply.destroy();
    await until(() => audit.filter(({ stage }) => stage === 'closed').length === 32);
    expect((await open(`${path}?follow=true`)).statusCode).toBe(200);
  });

  it('lets many readers open only so many logs of one namespace at once', async () => {
    await store.write(log, 0, Buffer.from('x'));
    for (const reader of ['a', 'b', 'c']) allowed[reader] = true;
    const all = ['a', 'b', 'c'].flatMap((reader) => Array.from({ length: 30 }, () => reader));
    const replies = await Promise.all(all.map((reader) => open(`${path}?follow=true`, reader)));
    const codes = replies.map((reply) => reply.statusCode ?? 0).sort();
    expect(codes).toEqual([...Array<number>(64).fill(200), ...Array<number>(26).fill(429)]);
    for (const reply of replies) reply.destroy();
  });

  it('stops sending artifacts to whom the right is taken away', async () => {
    const target = path.replace(/log$/, 'artifacts');
    const draft = await store.beginArchive(log, Buffer.from('end'));
    const size = 32 * 2 ** 20;
    await draft?.write(Buffer.alloc(size, 'x'));
    await draft?.publish();
    job = over(0);
    const reply = await open(target);
    let bytes = 0;
    delete allowed['reader'];
    clock.advance(60_000);
    const broken = await new Promise((resolve) => {
      reply.once('error', resolve);
      reply.once('end', () => resolve('sent to the end'));
      reply.on('data', (chunk: Buffer) => (bytes += chunk.length));
    });
    expect(broken).toMatchObject({ code: 'ECONNRESET' });
    expect(bytes).toBeLessThan(size);
    // Who comes again for the rest learns why.
    expect((await refused(`${target}?offset=${bytes}`)).code).toBe(401);
    expect(audit.at(-1)).toMatchObject({ stage: 'closed', resource: 'cijobs/artifacts', code: 401 });
  });

  it.each(['logs', 'artifacts'])(
    'has `cijob %s` say why, to whom the right is taken away',
    async (subcommand) => {
      const draft = await store.beginArchive(log, Buffer.from('end'));
      await draft?.write(Buffer.alloc(32 * 2 ** 20, 'x'));
      await draft?.publish();
      await store.write(log, 0, Buffer.alloc(32 * 2 ** 20, 'x'));
      job = over(32 * 2 ** 20);
      const cluster = await FakeApiServer.start();
      cluster.fault = (_request, response) => answer(response, 200, job ?? {});
      const kubeconfig = join(directory, 'kubeconfig');
      await writeFile(kubeconfig, cluster.kubeConfig('reader').exportConfig());
      const options = subcommand === 'artifacts' ? ['--output', '-'] : [];
      const child = spawn(process.execPath, [program, subcommand, 'job', '-n', 'ci', ...options], {
        env: {
          ...process.env,
          ...{ KUBECONFIG: kubeconfig, CIJOB_LOG_CA: authority.certificate },
          CIJOB_LOG_SERVER: `https://127.0.0.1:${server.port}`,
        },
      });
      try {
        await once(child.stdout, 'readable');
        allowed['reader'] = false;
        clock.advance(60_000);
        child.stdout.resume();
        const [said, [code]] = await Promise.all([
          textOf(child.stderr),
          once(child, 'close') as Promise<[number | null]>,
        ]);
        expect(said).toContain('User "reader" cannot get resource "cijobs/');
        expect(code).toBe(1);
      } finally {
        child.kill();
        await cluster.stop();
      }
    },
  );

  it('records who read what: when it begins, and how it ended', async () => {
    await store.write(log, 0, Buffer.from('12345'));
    job = over(5);
    await read(await open(`${path}?offset=2`));
    await until(() => audit.length === 2);
    const about = {
      ...{ user: 'reader', groups: ['system:authenticated'], verb: 'get', resource: 'cijobs/log' },
      ...{ job: 'ci/job', client: '127.0.0.1', uid: 'uid-1', attempt: 1 },
    };
    expect(audit).toEqual([
      { stage: 'opened', ...about },
      { stage: 'closed', ...about, outcome: 'sent to its end', bytesSent: 3, milliseconds: 0 },
    ]);
    await refused(path, 'viewer');
    await refused(`${path}?attempt=7`);
    await refused(path, 'nobody');
    expect(audit.slice(2).map(({ stage, user, code }) => [stage, user, code])).toEqual([
      ['refused', 'viewer', 403],
      ['refused', 'reader', 410],
    ]);
  });

  it('gives nothing away that cannot be recorded', async () => {
    await store.write(log, 0, Buffer.from('x'));
    job = over(1);
    unrecordable = true;
    expect(await refused()).toMatchObject({
      code: 503,
      message: expect.stringContaining('recorded') as string,
    });
    expect(errors).toEqual(['audit']);
  });

  it('cuts readers off when it closes, so that none takes it for the end', async () => {
    await store.write(log, 0, Buffer.from('x'));
    const reply = await open(`${path}?follow=true`);
    const broken = new Promise((resolve) => reply.once('error', resolve));
    reply.resume();
    await server.close();
    expect(await broken).toMatchObject({ code: 'ECONNRESET' });
    expect(reply.complete).toBe(false);
  });

  it('takes up a certificate that was replaced', async () => {
    const shown = async () => {
      const socket = tlsConnect({ host: '127.0.0.1', port: server.port, ca });
      await new Promise((resolve) => socket.once('secureConnect', resolve));
      const { CN } = socket.getPeerCertificate().subject;
      socket.destroy();
      return CN;
    };
    expect(await shown()).toBe('first');
    await install(second);
    const deadline = performance.now() + 10_000;
    while ((await shown()) !== 'second') {
      if (performance.now() > deadline) throw new Error('the new certificate is not shown');
      clock.advance(10_000);
      await delay(10);
    }
    // Half a pair is no reason to stop serving.
    await copyFile(first.certificate, files.certificate);
    clock.advance(10_000);
    await until(() => errors.includes('serving certificate'));
    expect(await shown()).toBe('second');
  });
});
