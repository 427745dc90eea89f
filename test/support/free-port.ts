import { createServer } from 'node:net';

/**
 * Ports below the range from which Linux takes the near end of outgoing connections (32768 and up by default), so that
 * nothing slips in between the look here and the daemon that gets the port.
 */
const lowest = 12_000;
const highest = 32_000;

/** A TCP port on 127.0.0.1 that nobody listens on. Taken at random, so that suites side by side rarely meet. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest));
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port found on 127.0.0.1 between ${lowest} and ${highest}`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
