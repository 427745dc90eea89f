import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FaultProxy } from '../support/fault-proxy.ts';

let echo: Server;
let proxy: FaultProxy;

/** Sends back what it gets, half by half. */
beforeEach(async () => {
  echo = createServer(
    { allowHalfOpen: true },
    (socket) => void socket.on('error', () => undefined).pipe(socket),
  );
  await once(echo.listen(0, '127.0.0.1'), 'listening');
  proxy = await FaultProxy.start({ port: (echo.address() as AddressInfo).port });
});
afterEach(async () => {
  await proxy.close();
  echo.close();
});

async function dial(): Promise<Socket> {
  const socket = connect(proxy.port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Collects what comes until there are `bytes` of it. */
async function receive(socket: Socket, bytes: number): Promise<string> {
  let got = '';
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    got += (chunk as Buffer).toString();
    if (got.length >= bytes) break;
  }
  return got;
}

test('bytes pass, and an end is passed on as an end', async () => {
  const socket = await dial();
  socket.end('hello');
  expect(await receive(socket, Infinity)).toBe('hello');
  expect(proxy.accepted).toBe(1);
});

test('a megabyte passes whole, whatever its pieces', async () => {
  const socket = await dial();
  socket.end('x'.repeat(1024 * 1024));
  expect((await receive(socket, Infinity)).length).toBe(1024 * 1024);
});

test('a black hole holds everything back and closes nothing; when it closes, what was sent comes', async () => {
  const socket = await dial();
  socket.write('one');
  expect(await receive(socket, 3)).toBe('one');
  proxy.faults.blackHole = true;
  socket.write('two');
  const answer = receive(socket, 3);
  const first = await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 150, 'silence'))]);
  expect(first).toBe('silence');
  expect(socket.closed).toBe(false);
  proxy.faults.blackHole = false;
  expect(await answer).toBe('two');
});

test('a server that dies behind a black hole is not heard dying', async () => {
  const arrival = once(echo, 'connection') as Promise<[Socket]>;
  const socket = await dial();
  const [server] = await arrival;
  proxy.faults.blackHole = true;
  server.destroy();
  const closed = once(socket, 'close').then(() => 'closed');
  const first = await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 150, 'silence'))]);
  expect(first).toBe('silence');
  proxy.faults.blackHole = false;
  expect(await closed).toBe('closed');
});

test('a reset ends every connection with an error', async () => {
  const socket = await dial();
  socket.write('one');
  await receive(socket, 3);
  const failed = once(socket, 'close');
  proxy.reset();
  await expect(failed).rejects.toMatchObject({ code: 'ECONNRESET' });
  expect(proxy.connections).toBe(0);
});

test('latency delays each way, however much is sent meanwhile', async () => {
  proxy.faults.latencyMs = 60;
  const socket = await dial();
  const begun = performance.now();
  for (let piece = 0; piece < 10; piece += 1) socket.write(String(piece));
  expect(await receive(socket, 10)).toBe('0123456789');
  expect(performance.now() - begun).toBeGreaterThanOrEqual(119);
});

test('a slow road takes its time', async () => {
  proxy.faults.bytesPerSecond = 10_000;
  const socket = await dial();
  const begun = performance.now();
  socket.write('x'.repeat(2_000));
  await receive(socket, 2_000);
  expect(performance.now() - begun).toBeGreaterThanOrEqual(395);
});

test('refused connections are closed at once', async () => {
  proxy.faults.refuse = true;
  const socket = connect(proxy.port, '127.0.0.1');
  await expect(once(socket, 'close')).rejects.toMatchObject({ code: 'ECONNRESET' });
  expect(proxy.connections).toBe(0);
});
