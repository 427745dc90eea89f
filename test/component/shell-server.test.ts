import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import WebSocket from 'ws';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../controller/clock.ts';
import { openShell } from '../../controller/hosts/shell.ts';
import { IncusClient } from '../../controller/incus/client.ts';
import { HttpPipe } from '../../controller/incus/http.ts';
import { AccessReview } from '../../controller/kube/access-review.ts';
import type { AuditEntry } from '../../controller/kube/audit-trail.ts';
import { KubeClient } from '../../controller/kube/client.ts';
import { serveLogs, type LogServer } from '../../controller/kube/log-server.ts';
import { Refusal } from '../../controller/kube/refusal.ts';
import {
  channels,
  endOfInputMessage,
  framed,
  maxMessageBytes,
  parseEnd,
  resizeMessage,
  shellProtocol,
  type ShellEnd,
} from '../../controller/kube/shell-protocol.ts';
import type { ServedShells } from '../../controller/kube/shell-server.ts';
import { Transport } from '../../controller/kube/transport.ts';
import { issueCertificate, makeAuthority, type KeyPair } from '../support/certificates.ts';
import { answer, FakeApiServer } from '../support/fake-api-server.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { clearAway } from '../support/left-under.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const path = '/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/job/shell';

describe('the shell server', () => {
  let certificates: string;
  let ca: string;
  let files: KeyPair;

  let api: FakeApiServer;
  let transport: Transport;
  let clock: ManualClock;
  let sim: IncusSim;
  let pipe: HttpPipe;
  let server: LogServer;
  let leading: boolean;
  let errors: string[];
  /** Whose shells an Event is made of. */
  let told: string[];
  /** What is recorded of those who come and go. */
  let audit: AuditEntry[];
  let unrecordable: boolean;
  /** Why there is no shell in the job's guest. */
  let unfit: Refusal | undefined;
  let gone: string | undefined;
  /** Who may open shells, by token: true all of them, or those subresources that are named. */
  let allowed: Record<string, boolean | string[]>;

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
    allowed = { editor: true, viewer: false };
    api.fault = (request, response) => {
      const { spec } = request.body as {
        spec: { token?: string; user?: string; resourceAttributes?: { subresource: string } };
      };
      if (request.path.endsWith('/tokenreviews')) {
        const known = spec.token !== undefined && spec.token in allowed;
        return answer(response, 201, {
          status: known ? { authenticated: true, user: { username: spec.token } } : {},
        });
      }
      const may = allowed[spec.user ?? ''] ?? false;
      const { subresource = '' } = spec.resourceAttributes ?? {};
      return answer(response, 201, {
        status: { allowed: may === true || (may && may.includes(subresource)) },
      });
    };
    clock = new ManualClock();
    transport = new Transport({ config: api.kubeConfig(), clock: systemClock, userAgent: 'test/1' });
    sim = new IncusSim();
    pipe = new HttpPipe(() => Promise.resolve(sim.connect()), { requests: 8, reads: 8 });
    const fingerprint = sim.store.addImage('image');
    await new IncusClient(pipe, 'default').start({
      method: 'POST',
      path: '/1.0/instances',
      body: { name: 'guest', type: 'container', source: { type: 'image', fingerprint }, start: true },
    });
    await until(() => sim.instance('guest')?.power === 'Running');
    leading = true;
    errors = [];
    told = [];
    audit = [];
    unrecordable = false;
    unfit = undefined;
    gone = undefined;
    const shells: ServedShells = {
      find({ namespace, name }) {
        if (name !== 'job') throw new Refusal(404, 'NotFound', `${name} not found`);
        if (unfit) throw unfit;
        return { namespace, name, uid: 'uid-1', host: 'host', instance: 'guest' };
      },
      open: (target, request, onOutput) =>
        openShell(new IncusClient(pipe, 'default'), 'default', target.instance, request, onOutput),
      gone: () => gone,
      opened: (target, username, root) => told.push(`${username} in ${target.instance}, root: ${root}`),
    };
    server = await serveLogs({
      listen: { host: '127.0.0.1', port: 0 },
      files,
      clock,
      review: new AccessReview(new KubeClient(transport), clock),
      logs: () => undefined,
      shells: () => (leading ? shells : undefined),
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
    pipe.close();
    sim.close();
    await api.stop();
  });

  interface Opening {
    headers?: Record<string, string>;
    protocol?: string;
    autoPong?: boolean;
    target?: string;
  }

  function connect(
    query: string,
    { headers, protocol = shellProtocol, autoPong, target = path }: Opening,
  ): WebSocket {
    return new WebSocket(`wss://127.0.0.1:${server.port}${target}?${query}`, [protocol], {
      ca,
      headers: headers ?? { authorization: 'Bearer editor' },
      ...(autoPong === undefined ? {} : { autoPong }),
    });
  }

  /** Opens a shell with a command of the guest's. */
  async function open(script: string, query = '', opening: Opening = {}) {
    const words = new URLSearchParams([
      ['command', 'sh'],
      ['command', '-c'],
      ['command', script],
    ]);
    const socket = connect(`${words.toString()}&${query}`, opening);
    const shown = { out: '', err: '' };
    const { promise: ended, resolve } = Promise.withResolvers<ShellEnd | 'cut off'>();
    socket.on('message', (message: Buffer) => {
      const payload = message.subarray(1);
      if (message[0] === channels.stdout) shown.out += payload.toString();
      if (message[0] === channels.stderr) shown.err += payload.toString();
      if (message[0] === channels.error) resolve(parseEnd(payload));
    });
    socket.on('close', () => resolve('cut off'));
    await once(socket, 'open');
    return {
      socket,
      shown,
      ended,
      type: (text: string) => socket.send(framed(channels.stdin, Buffer.from(text))),
    };
  }

  async function refused(opening: Opening = {}, query = '') {
    const socket = connect(query, opening);
    const [, reply] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage];
    let text = '';
    for await (const chunk of reply.setEncoding('utf8') as AsyncIterable<string>) text += chunk;
    const status = JSON.parse(text) as { code: number; reason: string; message: string };
    expect(status.code).toBe(reply.statusCode);
    return status;
  }
  const as = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

  async function until(holds: () => boolean): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!holds()) {
      if (performance.now() > deadline) throw new Error('not within 10 s');
      await delay(5);
    }
  }

  /** Lets half a minute go by, and the answer to the server's ping arrive. */
  async function pass(socket: WebSocket): Promise<void> {
    const pinged = once(socket, 'ping');
    clock.advance(30_000);
    await pinged;
    const answered = once(socket, 'pong');
    socket.ping();
    await answered;
  }

  /** Commands that run in the guest. */
  async function commands(): Promise<number> {
    const running = await new IncusClient(pipe, 'default').operations();
    return running.filter((one) => one.class === 'websocket' && one.status_code < 200).length;
  }

  async function untilNone(): Promise<void> {
    const deadline = performance.now() + 10_000;
    while ((await commands()) > 0) {
      if (performance.now() > deadline) throw new Error('a command goes on in the guest');
      await delay(5);
    }
  }

  it('runs a command in the guest as the job’s user, and tells its output and exit code', async () => {
    const { shown, ended } = await open('id -u; pwd; exit 7');
    expect(await ended).toEqual({ kind: 'exited', code: 7 });
    expect(shown).toEqual({ out: '1000\n/home/pikaci\n', err: '' });
    const root = await open('id -u', 'root=true');
    expect(await root.ended).toEqual({ kind: 'exited', code: 0 });
    expect(root.shown.out).toBe('0\n');
    expect(told).toEqual(['editor in guest, root: false', 'editor in guest, root: true']);
  });

  it('begins where the job’s command did', async () => {
    sim.instance('guest')?.guest.files.set('/workspace/snapshot', { kind: 'directory' });
    const { shown, ended } = await open('pwd');
    await ended;
    expect(shown.out).toBe('/workspace/snapshot\n');
  });

  it('has a terminal of the size that it is told, and then of another', async () => {
    const { socket, shown, ended, type } = await open(
      'while read -r line; do stty size; done',
      'tty=true&width=100&height=30&term=xterm',
    );
    type('\r');
    await until(() => shown.out === '\r\n30 100\r\n');
    socket.send(resizeMessage({ width: 120, height: 40 }));
    await until(() => {
      type('\r');
      return shown.out.includes('40 120');
    });
    type('\u0003');
    expect(await ended).toEqual({ kind: 'exited', code: 130 });
  });

  it('hands input on to its end, more of it than fits anywhere', async () => {
    const { socket, shown, ended, type } = await open('cat');
    const piece = `${'x'.repeat(32_000)}\n`;
    for (let count = 0; count < 100; count += 1) type(piece);
    socket.send(endOfInputMessage());
    expect(await ended).toEqual({ kind: 'exited', code: 0 });
    expect(shown.out === piece.repeat(100)).toBe(true);
  });

  it('asks the cluster for exactly the right to create a shell of that job', async () => {
    expect(await refused({ headers: {} })).toMatchObject({ code: 401, reason: 'Unauthorized' });
    expect(await refused(as('nobody'))).toMatchObject({ code: 401 });
    expect(await refused(as('viewer'))).toMatchObject({
      code: 403,
      message: expect.stringContaining('User "viewer" cannot create resource "cijobs/shell"') as string,
    });
    // Nobody learns which jobs there are by asking.
    const other = { ...as('viewer'), target: path.replace('/job/', '/other/') };
    expect(await refused(other)).toMatchObject({ code: 403 });
    const review = api.requests.find((request) => request.path.endsWith('/subjectaccessreviews'));
    expect(review?.body).toMatchObject({
      spec: {
        resourceAttributes: {
          ...{ verb: 'create', group: 'ci.pikaci.dev', version: 'v1alpha1' },
          ...{ resource: 'cijobs', subresource: 'shell', namespace: 'ci', name: 'job' },
        },
      },
    });
    expect(told).toEqual([]);
  });

  it('asks for a right of its own for a shell of root', async () => {
    allowed = { dev: ['shell'], debugger: ['rootshell'] };
    expect(await (await open('id -u', '', as('dev'))).ended).toEqual({ kind: 'exited', code: 0 });
    expect(await refused(as('dev'), 'root=true')).toMatchObject({
      code: 403,
      message: expect.stringContaining('User "dev" cannot create resource "cijobs/rootshell"') as string,
    });
    expect(await refused(as('debugger'))).toMatchObject({
      code: 403,
      message: expect.stringContaining('cannot create resource "cijobs/shell"') as string,
    });
    const root = await open('id -u', 'root=true', as('debugger'));
    expect(await root.ended).toEqual({ kind: 'exited', code: 0 });
    expect(root.shown.out).toBe('0\n');
  });

  it('ends a shell of root when that right is taken away, though the other stays', async () => {
    const { ended, socket } = await open('cat', 'root=true');
    allowed['editor'] = ['shell'];
    await pass(socket);
    clock.advance(30_000);
    expect(await ended).toMatchObject({ kind: 'broken', reason: 'Forbidden' });
    await untilNone();
  });

  it('records each shell when it opens and when it is over, and each refusal of a known user', async () => {
    const { ended, socket, type } = await open('cat; exit 7', 'root=true');
    expect(audit).toEqual([
      {
        ...{ stage: 'opened', user: 'editor', groups: [], verb: 'create', resource: 'cijobs/rootshell' },
        ...{ job: 'ci/job', client: '127.0.0.1', uid: 'uid-1', host: 'host', instance: 'guest' },
      },
    ]);
    type('typed by hand\n');
    socket.send(endOfInputMessage());
    await ended;
    await until(() => audit.length === 2);
    expect(audit[1]).toMatchObject({
      ...{ stage: 'closed', user: 'editor', resource: 'cijobs/rootshell', uid: 'uid-1' },
      ...{ outcome: 'it exited with code 7', bytesSent: 14, bytesReceived: 17, milliseconds: 0 },
    });
    await refused(as('viewer'));
    expect(audit[2]).toMatchObject({ stage: 'refused', user: 'viewer', job: 'ci/job', code: 403 });
    await refused(as('nobody'));
    expect(audit).toHaveLength(3);
    expect(JSON.stringify(audit)).not.toContain('typed');
  });

  it('opens no shell that cannot be recorded', async () => {
    unrecordable = true;
    expect(await refused()).toMatchObject({
      code: 503,
      message: expect.stringContaining('recorded') as string,
    });
    expect(errors).toEqual(['audit']);
    expect(await commands()).toBe(0);
    expect(told).toEqual([]);
    unrecordable = false;
    expect(await (await open('true')).ended).toEqual({ kind: 'exited', code: 0 });
  });

  it('takes the token from the header that a proxy passes on, and from one header only', async () => {
    const own = { 'x-cijob-authorization': 'Bearer editor' };
    expect(await (await open('true', '', { headers: own })).ended).toEqual({ kind: 'exited', code: 0 });
    expect(await refused({ headers: { ...own, authorization: 'Bearer editor' } })).toMatchObject({
      code: 400,
    });
  });

  it('takes the parameters from a header where a proxy drops them from the URL', async () => {
    const headers = {
      authorization: 'Bearer editor',
      'x-cijob-query': 'command=sh&command=-c&command=exit+7',
    };
    const socket = connect('', { headers });
    const ends: ShellEnd[] = [];
    socket.on('message', (message: Buffer) => {
      if (message[0] === channels.error) ends.push(parseEnd(message.subarray(1)));
    });
    await once(socket, 'close');
    expect(ends).toEqual([{ kind: 'exited', code: 7 }]);
  });

  it('says why there is no shell before it begins one', async () => {
    expect(await refused({ target: path.replace('/job/', '/other/') })).toMatchObject({ code: 404 });
    expect(await refused({ target: path.replace('/shell', '/log') })).toMatchObject({ code: 404 });
    unfit = new Refusal(409, 'Conflict', 'it is Pending');
    expect(await refused()).toMatchObject({ code: 409, message: 'it is Pending' });
    unfit = undefined;
    expect(await refused({ protocol: 'v4.channel.k8s.io' })).toMatchObject({ code: 400 });
    for (const query of ['tty=perhaps', 'tty=true&width=0', 'tty=true&term=a%20b', 'command=x&'.repeat(257)])
      expect(await refused({}, query)).toMatchObject({ code: 400 });
    leading = false;
    expect(await refused()).toMatchObject({ code: 503 });
    leading = true;
    // What the host does not do is no fault of the one who asks.
    sim.kill();
    expect(await refused()).toMatchObject({ code: 503 });
    expect(errors).toEqual(['shell']);
  });

  it('lets one user have only so many shells at once', async () => {
    const open8 = await Promise.all(Array.from({ length: 8 }, () => open('cat')));
    expect(await refused()).toMatchObject({ code: 429, reason: 'TooManyRequests' });
    open8[0]?.socket.terminate();
    await until(() => audit.some(({ outcome }) => outcome === 'the user went away'));
    expect(await (await open('true')).ended).toEqual({ kind: 'exited', code: 0 });
  });

  it('ends what runs in the guest when the user goes away, also without a word', async () => {
    const closes = await open('cat');
    closes.socket.close();
    await untilNone();
    const terminates = await open('cat', 'tty=true');
    terminates.socket.terminate();
    await untilNone();
    // Nothing closes this one: it just does not answer any more.
    const silent = await open('cat', '', { autoPong: false });
    clock.advance(30_000);
    await once(silent.socket, 'ping');
    expect(await commands()).toBe(1);
    clock.advance(30_000);
    expect(await silent.ended).toBe('cut off');
    await untilNone();
  });

  it('cuts off one who sends what is no message of the protocol, or too large', async () => {
    const wrong = await open('cat');
    wrong.socket.send('text');
    expect(await wrong.ended).toMatchObject({ kind: 'broken', reason: 'BadRequest' });
    const large = await open('cat');
    large.socket.send(Buffer.alloc(maxMessageBytes + 1));
    expect(await large.ended).toBe('cut off');
    await untilNone();
  });

  it('ends when the right is taken away', async () => {
    const { ended, socket } = await open('cat');
    allowed['editor'] = false;
    await pass(socket);
    clock.advance(30_000);
    expect(await ended).toMatchObject({ kind: 'broken', reason: 'Forbidden' });
    await untilNone();
  });

  it('ends when nothing is typed or printed for half an hour', async () => {
    const { ended, socket, type, shown } = await open('cat');
    for (let minutes = 0; minutes < 29; minutes += 0.5) await pass(socket);
    type('still here\n');
    await until(() => shown.out === 'still here\n');
    for (let minutes = 0; minutes < 30; minutes += 0.5) {
      expect(shown.out).toBe('still here\n');
      await pass(socket);
    }
    clock.advance(30_000);
    expect(await ended).toMatchObject({ kind: 'broken', reason: 'Idle' });
    await untilNone();
  });

  it('says that the instance is gone when the command was killed with it', async () => {
    const { ended, shown } = await open('echo begun; cat');
    await until(() => shown.out === 'begun\n');
    gone = 'the job is over';
    sim.instance('guest')?.guest.halt();
    expect(await ended).toEqual({ kind: 'broken', reason: 'InstanceGone', message: 'the job is over' });
    // One that was killed by itself was killed, no more.
    gone = undefined;
    const { ended: killed } = await open('kill -9 $$');
    expect(await killed).toEqual({ kind: 'exited', code: 137 });
  });

  it('ends with the connection to the host, and begins anew over the next', async () => {
    const { ended } = await open('cat');
    sim.cutConnections();
    expect(await ended).toEqual({ kind: 'exited', code: 137 });
    await untilNone();
    expect(await (await open('exit 3')).ended).toEqual({ kind: 'exited', code: 3 });
  });

  it('tells everybody that it stops, and leaves nothing behind', async () => {
    const { ended, socket } = await open('cat');
    const closed = once(socket, 'close');
    await server.close();
    expect(await ended).toMatchObject({ kind: 'broken', reason: 'ServiceUnavailable' });
    await closed;
    await untilNone();
  });
});
