import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as tlsConnect, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { CiJob } from '../../controller/api/cijob.ts';
import { systemClock } from '../../controller/clock.ts';
import { AccessReview } from '../../controller/kube/access-review.ts';
import { KubeClient } from '../../controller/kube/client.ts';
import { serveLogs, strangerLimits, type LogServer } from '../../controller/kube/log-server.ts';
import { Transport } from '../../controller/kube/transport.ts';
import { issueCertificate, makeAuthority, type KeyPair } from '../support/certificates.ts';
import { answer, FakeApiServer } from '../support/fake-api-server.ts';
import { clearAway } from '../support/left-under.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const jobPath = '/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/job';
const flood = 300;

/** Who has no token, and what they can do to those who have one. */
describe('connections to the server', () => {
  let certificates: string;
  let ca: string;
  let files: KeyPair;

  let api: FakeApiServer;
  let transport: Transport;
  let clock: ManualClock;
  let server: LogServer;
  let review: AccessReview;
  let content: Buffer;
  let live: boolean;
  let opened: Socket[];

  beforeAll(async () => {
    certificates = await makeTempDir('certs');
    const authority = await makeAuthority(certificates);
    ca = await readFile(authority.certificate, 'utf8');
    const addresses = ['127.0.0.1'];
    files = await issueCertificate(authority, { dir: certificates, name: 'one', user: 'one', addresses });
  });
  afterAll(() => clearAway(certificates));

  beforeEach(async () => {
    api = await FakeApiServer.start();
    api.fault = (request, response) => {
      const { spec } = request.body as { spec: { token?: string } };
      if (!request.path.endsWith('/tokenreviews')) {
        return answer(response, 201, { status: { allowed: true } });
      }
      const known = spec.token?.startsWith('reader') ?? false;
      const status = known ? { authenticated: true, user: { username: spec.token } } : {};
      return answer(response, 201, { status });
    };
    clock = new ManualClock();
    transport = new Transport({ config: api.kubeConfig(), clock: systemClock, userAgent: 'test/1' });
    content = Buffer.from('the log\n');
    live = false;
    opened = [];
    const job = CiJob.parse({
      apiVersion: 'ci.pikaci.dev/v1alpha1',
      kind: 'CiJob',
      metadata: { name: 'job', namespace: 'ci', uid: 'uid-1', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: { command: 'true', instance: { image: 'image' } },
    });
    review = new AccessReview(new KubeClient(transport), clock);
    server = await serveLogs({
      listen: { host: '127.0.0.1', port: 0 },
      files,
      clock,
      review,
      logs: () => ({
        job: () => job,
        size: () => content.length,
        newestAttempt: () => 1,
        isTruncated: () => false,
        isLive: () => live,
        read: (_log, offset, length) => Promise.resolve(content.subarray(offset, offset + length)),
        changed: () => new Promise(() => undefined),
        artifacts: { size: () => undefined, attempt: () => undefined, read: () => Promise.resolve(content) },
      }),
      shells: () => undefined,
      trail: { record: () => undefined },
      onError: () => undefined,
    });
  });
  afterEach(async () => {
    for (const socket of opened) socket.destroy();
    await server.close();
    transport.close();
    await api.stop();
  });

  async function until(holds: () => boolean): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!holds()) {
      if (performance.now() > deadline) throw new Error('not within 10 s');
      await delay(5);
    }
  }

  /** A connection whose other half is left open, whatever the server does. */
  function tcp(from = '127.0.0.1'): Socket {
    const socket = connect({ host: '127.0.0.1', port: server.port, localAddress: from, allowHalfOpen: true });
    return kept(socket);
  }

  function tls(): TLSSocket {
    return kept(
      tlsConnect({ socket: tcp(), ca, servername: 'localhost', checkServerIdentity: () => undefined }),
    );
  }

  function kept<T extends Socket>(socket: T): T {
    socket.on('error', () => undefined);
    opened.push(socket);
    return socket;
  }

  const head = (lines: readonly string[]) =>
    `${[`GET ${jobPath}/log HTTP/1.1`, 'Host: x', ...lines].join('\r\n')}\r\n`;
  const upgrade = `${head(['Connection: Upgrade', 'Upgrade: websocket'])}\r\n`;

  /** Sends, and reads until the server has nothing more to say. */
  async function ask(socket: TLSSocket, text: string): Promise<string> {
    let said = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    await once(socket, 'secureConnect');
    socket.write(text);
    await once(socket, 'end');
    return said;
  }

  function open(token = 'reader', query = '', agent: Agent | false = false): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}` };
      const path = `${jobPath}/log${query}`;
      const request = httpsRequest(
        { host: '127.0.0.1', port: server.port, path, ca, headers, agent },
        resolve,
      );
      request.once('error', reject);
      request.end();
    });
  }

  async function read(token?: string): Promise<string> {
    let text = '';
    for await (const chunk of (await open(token)).setEncoding('utf8') as AsyncIterable<string>) text += chunk;
    return text;
  }

  const closed = (socket: Socket) => socket.destroyed || socket.readableEnded || socket.errored !== null;

  it('says why an upgrade is refused, and does not wait for the other side to end its half', async () => {
    const socket = tls();
    expect(await ask(socket, upgrade)).toMatch(
      /^HTTP\/1.1 404 [^]*"kind":"Status"[^]*only …\/cijobs\/NAME\/shell/,
    );
    const below = opened[0];
    clock.advance(1_000);
    // What is sent now meets nobody.
    await until(() => {
      if (!socket.destroyed) socket.write('x');
      return below !== undefined && (below.errored !== null || below.destroyed);
    });
  });

  it('lets readers in while somebody keeps refused upgrades half open', async () => {
    const refused = await Promise.all(
      Array.from({ length: flood }, async () => {
        const socket = tls();
        socket.once('secureConnect', () => socket.write(upgrade));
        await Promise.race([once(socket, 'data'), once(socket, 'close'), once(socket, 'error')]);
        return socket;
      }),
    );
    expect(refused).toHaveLength(flood);
    expect(await read()).toBe('the log\n');
  });

  it('lets readers in while somebody opens connections and says nothing', async () => {
    const silent = Array.from({ length: flood }, () => tcp());
    await until(() => silent.every((socket) => !socket.connecting));
    expect(await read()).toBe('the log\n');
    // The newest of them have a place until their time is over.
    await until(() => silent.filter((socket) => !closed(socket)).length < strangerLimits.ofAddress + 1);
    clock.advance(strangerLimits.requestTime);
    await until(() => silent.every(closed));
  });

  it('lets readers in from an address whose places are all held by tokens that the cluster is slow to refuse', async () => {
    // Known since: its token does not stand in line behind theirs.
    expect(await read()).toBe('the log\n');
    const atOnce = api.fault;
    api.fault = (request, response) => {
      const { spec } = request.body as { spec: { token?: string } };
      return (spec.token?.startsWith('bad') ?? false) || atOnce(request, response);
    };
    const asked = vi.spyOn(review, 'userOf');
    const asking = Array.from({ length: strangerLimits.ofAddress }, (_, index) => {
      const socket = tls();
      socket.once('secureConnect', () => socket.write(`${head([`Authorization: Bearer bad${index}`])}\r\n`));
      return socket;
    });
    await until(() => asked.mock.calls.length === asking.length);
    expect(await read()).toBe('the log\n');
    await until(() => asking.some(closed));
    expect(asking.filter(closed)).toHaveLength(1);
  });

  it.each(['no handshake', 'no request', 'half a request'])(
    'ends a connection with %s in time',
    async (what) => {
      const socket = what === 'no handshake' ? tcp() : tls();
      await once(socket, what === 'no handshake' ? 'connect' : 'secureConnect');
      if (what === 'half a request') socket.write(head(['X-Slow: yes']));
      socket.resume();
      // The server has it by then.
      expect(await read()).toBe('the log\n');
      clock.advance(strangerLimits.requestTime - 1);
      expect(await read()).toBe('the log\n');
      expect(closed(socket)).toBe(false);
      clock.advance(1);
      await until(() => closed(socket));
    },
  );

  it('does not cut off those who are known, flood or not, however long it lasts', async () => {
    live = true;
    const following = await open('reader', '?follow=true');
    let text = '';
    let broken: unknown;
    following.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    following.once('error', (error) => (broken = error));
    await until(() => text === 'the log\n');
    const silent = Array.from({ length: flood }, () => tcp());
    await until(() => silent.filter(closed).length >= flood - strangerLimits.ofAddress);
    clock.advance(strangerLimits.reviewTime * 2);
    await until(() => silent.every(closed));
    content = Buffer.from('the log\nand more\n');
    clock.advance(1_000);
    await until(() => text === 'the log\nand more\n');
    expect(broken).toBeUndefined();
  });

  it('ends those of the address that has the most', async () => {
    const modest = Array.from({ length: 20 }, () => tcp('127.0.0.2'));
    await until(() => modest.every((socket) => !socket.connecting));
    const many = ['127.0.0.3', '127.0.0.4', '127.0.0.5'].flatMap((from) =>
      Array.from({ length: strangerLimits.ofAddress }, () => tcp(from)),
    );
    const places = strangerLimits.most - modest.length;
    await until(() => many.filter(closed).length >= many.length - places);
    expect(modest.filter(closed)).toEqual([]);
  });

  it('gives a reader that is behind all the time that it needs', async () => {
    content = Buffer.alloc(8 * 2 ** 20, 'x');
    const reply = await open();
    for (let count = 0; count < 6; count += 1) {
      clock.advance(strangerLimits.requestTime * 2);
      await delay(5);
    }
    let bytes = 0;
    for await (const chunk of reply as AsyncIterable<Buffer>) bytes += chunk.length;
    expect(bytes).toBe(content.length);
  });

  it('ends a connection between two requests as one that says nothing', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      const reply = await open('reader', '', agent);
      const { socket } = reply;
      reply.resume();
      await once(reply, 'end');
      clock.advance(strangerLimits.requestTime - 1);
      expect(await read()).toBe('the log\n');
      expect(socket.destroyed).toBe(false);
      clock.advance(1);
      await until(() => socket.destroyed);
    } finally {
      agent.destroy();
    }
  });

  it('answers one request at a time on a connection', async () => {
    live = true;
    const request = `${head(['Authorization: Bearer reader']).replace('/log ', '/log?follow=true ')}\r\n`;
    const socket = tls();
    let said = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    await once(socket, 'secureConnect');
    socket.write(request.repeat(10));
    await until(() => said.includes('the log'));
    expect(api.requests.filter(({ path }) => path.endsWith('/tokenreviews'))).toHaveLength(1);
    live = false;
    clock.advance(1_000);
    await until(() => said.includes('one request at a time'));
  });

  it('closes at once, also with connections that have not said anything', async () => {
    const silent = tcp();
    await once(silent, 'connect');
    expect(await read()).toBe('the log\n');
    await server.close();
    await until(() => closed(silent));
  });
});
