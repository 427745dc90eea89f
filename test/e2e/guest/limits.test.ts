import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startBench, type Bench } from '../support/bench.ts';
import { allKinds, Guest } from './guest.ts';

let bench: Bench;
beforeAll(async () => {
  bench = await startBench();
});
afterAll(() => bench.stop());

const mebibyte = 1024 * 1024;
const marker = (limit: number) => `\n[pikaci] the log ends here: its limit of ${limit} bytes is reached\n`;

describe.for(allKinds)('a %s guest', (kind) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.launch(bench.host, kind);
  });
  beforeEach(() => guest.reset());
  afterAll(() => guest.delete());

  /** Whether a process with this word in its environment or arguments lives. */
  const alive = async (word: string) =>
    (
      await guest.shell(
        `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q '[${word[0]!}]${word.slice(1)}'`,
      )
    ).code === 0;
  const seconds = ({ started_at, finished_at }: { started_at: string; finished_at: string }) =>
    (Date.parse(finished_at) - Date.parse(started_at)) / 1000;

  test('stops a command at its time limit, and keeps what it had said', async () => {
    const { code, result, log } = await guest.run({ command: 'echo begun; sleep 61', timeoutSeconds: 1 });
    expect(code).toBe(124);
    expect(result).toMatchObject({ status: 'failed', exit_code: 124, timed_out: true });
    expect(result.message).toBe('test command timed out after 1 s');
    expect(result).not.toHaveProperty('bootstrap_error');
    expect(seconds(result)).toBeGreaterThanOrEqual(1);
    expect(seconds(result)).toBeLessThan(6);
    expect(log).toBe('begun\n[pikaci] stopped after 1 s: the time limit\n');
    expect(await alive('sleep 61')).toBe(false);
  });

  test('lets a command that is told to stop clean up; it has timed out all the same', async () => {
    const { result, log } = await guest.run({
      command: 'trap "echo cleaned; exit 0" TERM; sleep 62 & wait',
      timeoutSeconds: 1,
    });
    expect(log).toContain('cleaned\n');
    expect(result).toMatchObject({ status: 'failed', exit_code: 124, timed_out: true });
  });

  test.for([false, true])(
    'kills, ten seconds later, a command that ignores TERM, with all it started (root: %s)',
    async (asRoot) => {
      const { result } = await guest.run({
        command: 'trap "" TERM; (trap "" TERM; exec setsid sleep 63) & while :; do sleep 64; done',
        timeoutSeconds: 1,
        asRoot,
      });
      expect(result).toMatchObject({ exit_code: 124, timed_out: true });
      expect(seconds(result)).toBeGreaterThanOrEqual(11);
      expect(seconds(result)).toBeLessThan(20);
      expect(await alive('sleep 63')).toBe(false);
      expect(await alive('sleep 64')).toBe(false);
    },
  );

  test.for([false, true])(
    'lets nothing outlive the command, however it left it (root: %s)',
    async (asRoot) => {
      const { code, result, log } = await guest.run({
        command: `
          sleep 65 &
          nohup sleep 66 >/dev/null 2>&1 &
          setsid sleep 67 </dev/null >/dev/null 2>&1 &
          (setsid bash -c 'trap "" TERM HUP; sleep 68; exit' &)
          (trap "" TERM; while :; do sleep 69; done) &
          sleep 0.3; echo done`,
        asRoot,
      });
      expect(code).toBe(0);
      expect(result).toMatchObject({ status: 'passed', message: 'test passed' });
      expect(log).toBe('done\n');
      for (const sleep of ['sleep 65', 'sleep 66', 'sleep 67', 'sleep 68', 'sleep 69']) {
        expect(await alive(sleep)).toBe(false);
      }
    },
  );

  test('survives a fork bomb', async () => {
    const { result } = await guest.run({
      command: 'ulimit -u 200; bomb() { bomb 2>/dev/null & bomb 2>/dev/null & sleep 1; }; bomb; sleep 70',
      timeoutSeconds: 2,
    });
    expect(result).toMatchObject({ timed_out: true });
    const left = await guest.shellOk(
      'grep -l "^Uid:[[:space:]]*1000" /proc/[0-9]*/status 2>/dev/null | wc -l',
    );
    expect(Number(left)).toBe(0);
  });

  test('does not wait for a process that holds nothing but the log', async () => {
    const { result } = await guest.run({ command: 'sleep 71 & disown; echo fine' });
    expect(result.status).toBe('passed');
    expect(seconds(result)).toBeLessThan(5);
  });

  test('goes on when the command closes its outputs', async () => {
    const { result, log } = await guest.run({ command: 'echo said; exec >&- 2>&-; sleep 0.3; exit 4' });
    expect(result).toMatchObject({ exit_code: 4 });
    expect(log).toBe('said\n');
  });

  test('cuts the log at its limit, says so, and does not disturb the command', async () => {
    const limit = 64 * 1024;
    const { result } = await guest.run({
      command:
        'head -c 65000 /dev/zero | tr "\\0" a; yes 0123456789 | head -c 3000000; echo "$?" >/artifacts/after; exit 6',
      environment: { PIKACI_INCUS_LOG_MAX_BYTES: `${limit}` },
    });
    expect(result).toMatchObject({ exit_code: 6 });
    expect(result.message).toBe(`test command exited with 6; guest.log was cut after ${limit} bytes`);
    expect(await guest.file('/artifacts/after')).toBe('0\n');
    const log = await guest.log();
    expect(log).toHaveLength(limit + marker(limit).length);
    expect(log.endsWith(`0123456789\n0123${marker(limit)}`) || log.endsWith(marker(limit))).toBe(true);
    expect(log.startsWith('a'.repeat(65000))).toBe(true);
  });

  test('takes 50 MB/s of output into a log of 64 MiB, and drops the rest', async () => {
    const megabytes = 200;
    const say = `yes 'a line of output that is about as long as such lines are' | head -c ${megabytes * 1_000_000}`;
    const time = (what: string) =>
      `before=$EPOCHREALTIME; ${what}; after=$EPOCHREALTIME; echo $((\${after/./} - \${before/./}))`;
    // Where the machine is too busy for that rate, a plain copy is the measure.
    const copy = Number(
      await guest.shellOk(`(${time(`${say} | cat >/cargo-home/copy`)}); rm /cargo-home/copy`),
    );
    const { result, log } = await guest.run({ command: `exec 3>/artifacts/micros; ${time(say)} >&3` });
    expect(result.status).toBe('passed');
    const micros = Number(await guest.file('/artifacts/micros'));
    expect(micros).toBeLessThan(Math.max((megabytes / 50) * 1_000_000, 3 * copy));
    expect(log).toHaveLength(64 * mebibyte + marker(64 * mebibyte).length);
  });

  test('shows its log while it grows', async () => {
    const start = await guest.start({
      command: 'echo first; while ! [ -e /artifacts/go ]; do sleep 0.1; done',
    });
    await expect
      .poll(() => guest.shell('cat /artifacts/guest.log'), { timeout: 10_000 })
      .toMatchObject({
        stdout: 'first\n',
      });
    await guest.shellOk('touch /artifacts/go');
    expect(await guest.ended(start)).toBe(0);
  });

  test.for([false, true])('has a result also when the disk is full (root: %s)', async (asRoot) => {
    await guest.shellOk('mount -t tmpfs -o size=1m,mode=1777 tmpfs /artifacts');
    try {
      const { code, result } = await guest.run({
        command:
          'echo said; cat /dev/zero >/artifacts/big; rm -f /artifacts/none; yes | head -c 100000; exit 8',
        asRoot,
      });
      expect(code).toBe(8);
      expect(result).toMatchObject({ exit_code: 8 });
      expect(result.message).toBe('test command exited with 8; guest.log could not be written to its end');
    } finally {
      await guest.shellOk('umount /artifacts');
    }
  });
});
