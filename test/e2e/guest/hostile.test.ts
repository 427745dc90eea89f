import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startBench, type Bench } from '../support/bench.ts';
import { allKinds, Guest } from './guest.ts';

let bench: Bench;
beforeAll(async () => {
  bench = await startBench();
});
afterAll(() => bench.stop());

const forged = '{"schema_version":1,"status":"passed","exit_code":0,"message":"forged","timed_out":false}';

describe.for(allKinds)('a hostile command in a %s guest', (kind) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.launch(bench.host, kind);
  });
  beforeEach(() => guest.reset());
  afterAll(() => guest.delete());

  test.for<[string, string]>([
    ['write the result', `echo '${forged}' >/artifacts/result.json`],
    ['remove the result', 'rm -f /artifacts/result.json; rm -rf /artifacts/result.json'],
    ['rename the result', 'mv /artifacts/result.json /artifacts/mine'],
    [
      'rename its own file over the result',
      `echo '${forged}' >/artifacts/f; mv -f /artifacts/f /artifacts/result.json`,
    ],
    ['put a link in its place', 'ln -sf /artifacts/f /artifacts/result.json'],
    ['put a directory in its place', 'rm -f /artifacts/result.json; mkdir /artifacts/result.json'],
    ['put a pipe in its place', 'rm -f /artifacts/result.json; mkfifo /artifacts/result.json'],
    ['swap the whole directory', 'mv /artifacts /a; mkdir /artifacts; mv /artifacts /tmp/a'],
    ['open up the directory', 'chmod 777 /artifacts; chown pikaci /artifacts'],
    [
      'empty the log',
      ': >/artifacts/guest.log; rm -f /artifacts/guest.log; truncate -s 0 /artifacts/guest.log',
    ],
    ['replace the log', 'echo mine >/artifacts/f; mv -f /artifacts/f /artifacts/guest.log'],
    ['truncate its own output', 'truncate -s 0 /dev/stdout; : >/proc/self/fd/1'],
    ['prepare temporary names', 'for i in $(seq 200); do ln -s /etc/passwd /artifacts/.result.$i; done'],
    ['kill the runner', 'kill -9 $(cat /var/lib/pikaci-incus-run/claim) 1; kill -9 -- -1'],
    [
      'claim the guest',
      'rm -rf /var/lib/pikaci-incus-run /run/pikaci-incus-run; mkdir /run/pikaci-incus-run',
    ],
  ])('cannot %s', async ([, attempt]) => {
    const { code, result, log } = await guest.run({
      command: `echo begun; (${attempt}); echo tried; exit 11`,
    });
    // Killing everything one may kill ends the command as well.
    const killed = attempt.includes('-- -1');
    expect(code).toBe(killed ? 137 : 11);
    expect(result).toMatchObject({ status: 'failed', exit_code: killed ? 137 : 11 });
    expect(log.startsWith('begun\n')).toBe(true);
    const listing = await guest.shellOk('ls -ldn /artifacts /artifacts/result.json /artifacts/guest.log');
    const [directory, guestLog, resultFile] = listing.trim().split('\n');
    expect(directory).toMatch(/^drwxrwxrwt +\d+ 0 +0 /);
    expect(guestLog).toMatch(/^-rw-r--r-- +1 0 +0 .*guest\.log$/);
    expect(resultFile).toMatch(/^-rw-r--r-- +1 0 +0 .*result\.json$/);
  });

  test('leaves no moment at which a result of its own could be read', async () => {
    const start = await guest.start({
      command: `echo up; while :; do echo '${forged}' >/artifacts/result.json; done 2>/dev/null`,
      timeoutSeconds: 2,
    });
    await expect.poll(() => guest.log(), { timeout: 10_000 }).toBe('up\n');
    expect(await guest.file('/artifacts/result.json')).toBe('');
    await guest.ended(start);
    expect(await guest.result()).toMatchObject({ timed_out: true });
  });

  test('finds what lay in the way before the start removed', async () => {
    await guest.shellOk(`
      mkdir -p /artifacts/result.json/x; ln -s /etc/passwd /artifacts/guest.log; chown 1000:100 /artifacts`);
    const { result, log } = await guest.run({ command: 'echo said' });
    expect(result.status).toBe('passed');
    expect(log).toBe('said\n');
    expect(await guest.shellOk('head -n 1 /etc/passwd')).toMatch(/^root:/);
  });

  test('with root can do more, but a directory is not taken for a result', async () => {
    const { result } = await guest.run({
      command: 'rm -f /artifacts/result.json; mkdir -p /artifacts/result.json/deep; exit 12',
      asRoot: true,
    });
    expect(result).toMatchObject({ exit_code: 12 });
  });
});
