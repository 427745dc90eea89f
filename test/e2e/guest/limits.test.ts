import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startBench, type Bench } from '../support/bench.ts';
import { allKinds, Guest } from './guest.ts';

let bench: Bench;
beforeAll(async () => {
  bench = await startBench();
});
afterAll(() => bench.stop());

const mebibyte = 1024 * 1024;
const marker = (limit: number) =>
  `\n[pikaci] the log is cut here: its limit of ${limit} bytes is reached; its end follows\n`;
const endBytes = 4096;

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
    // Not by KILL, which comes ten seconds later.
    expect(seconds(result)).toBeLessThan(11);
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
    'kills, ten seconds later, a command that goes on when it is told to stop, with all it started (root: %s)',
    async (asRoot) => {
      const { result } = await guest.run({
        command: `
          goes_on() { trap "echo told $1 >>/artifacts/told" TERM; while :; do sleep 0.1; done; }
          export -f goes_on
          (trap "" TERM; exec setsid sleep 63) & setsid bash -c 'goes_on daemon' & goes_on command`,
        timeoutSeconds: 1,
        asRoot,
      });
      // Once: what is told twice may take that for impatience.
      expect((await guest.shellOk('sort /artifacts/told')).split('\n')).toEqual([
        'told command',
        'told daemon',
        '',
      ]);
      expect(result).toMatchObject({ exit_code: 124, timed_out: true });
      expect(seconds(result)).toBeGreaterThanOrEqual(11);
      // Before the host's own limit, which comes thirty seconds after the guest's.
      expect(seconds(result)).toBeLessThan(31);
      expect(await alive('sleep 63')).toBe(false);
      expect(await alive('goes_on')).toBe(false);
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

  test.for([false, true])(
    'ends a fork bomb that takes all the processes a guest may have (root: %s)',
    async (asRoot) => {
      const limit = ['config', 'set', '--project', guest.project, guest.name];
      await guest.incus.incusOk([...limit, 'limits.processes=1000']);
      try {
        const { result } = await guest.run({
          command: 'bomb() { bomb 2>/dev/null | bomb 2>/dev/null & }; bomb; sleep 70',
          timeoutSeconds: 2,
          asRoot,
        });
        expect(result).toMatchObject({ exit_code: 124, timed_out: true });
        const left = await guest.shellOk(
          'grep -a -l PIKACI_INCUS_RUN= /proc/[0-9]*/environ 2>/dev/null | wc -l',
        );
        expect(Number(left)).toBe(0);
      } finally {
        await guest.incus.incusOk([...limit, 'limits.processes=']);
      }
    },
  );

  test('does not wait for a process that holds nothing but the log', async () => {
    const { result } = await guest.run({ command: 'sleep 71 & disown; echo fine' });
    // Without a word on the log, which it would have had to wait for.
    expect(result).toMatchObject({ status: 'passed', message: 'test passed' });
  });

  test('goes on when the command closes its outputs', async () => {
    const { result, log } = await guest.run({ command: 'echo said; exec >&- 2>&-; sleep 0.3; exit 4' });
    expect(result).toMatchObject({ exit_code: 4 });
    expect(log).toBe('said\n');
  });

  test('keeps the beginning and the end of a log over its limit, says so, and does not disturb the command', async () => {
    const limit = 64 * 1024;
    const { result } = await guest.run({
      command: `
        head -c 65000 /dev/zero | tr '\\0' a; yes 0123456789 2>/dev/null | head -c 3000000; echo "$?" >/artifacts/after
        echo; echo 'the last words'; exit 6`,
      parameters: { PIKACI_INCUS_LOG_MAX_BYTES: `${limit}` },
    });
    expect(result).toMatchObject({ exit_code: 6 });
    expect(result.message).toBe(`test command exited with 6; guest.log was cut after ${limit} bytes`);
    expect(await guest.file('/artifacts/after')).toBe('0\n');
    const log = await guest.log();
    expect(log).toHaveLength(limit + marker(limit).length + endBytes);
    const output =
      'a'.repeat(65000) + '0123456789\n'.repeat(400_000).slice(0, 3_000_000) + '\nthe last words\n';
    expect(log.slice(0, limit)).toBe(output.slice(0, limit));
    expect(log.slice(limit)).toBe(marker(limit) + output.slice(-endBytes));
    expect(await guest.shellOk('ls /run/pikaci-incus-run | grep -c ^end || true')).toBe('0\n');
  });

  test('tells why a log was cut also when it takes a while to look, and there is more to end', async () => {
    const wc = '/run/current-system/sw/bin/wc';
    const slow = '#!/bin/sh\nsleep 1; exec /root/wc "$@"\n';
    await guest.shellOk(`mv ${wc} /root/wc; printf '%s' '${slow}' >${wc}; chmod 0755 ${wc}`);
    try {
      const { result } = await guest.run({
        command: 'sleep 77 >/dev/null 2>&1 & yes 2>/dev/null | head -c 100000; exit 6',
        parameters: { PIKACI_INCUS_LOG_MAX_BYTES: '2048' },
      });
      expect(result.message).toBe('test command exited with 6; guest.log was cut after 2048 bytes');
    } finally {
      await guest.shellOk(`mv -f /root/wc ${wc}`);
    }
  });

  test('loses not a byte of the end when the log goes over its limit by a little', async () => {
    const limit = 1024;
    const { result, log } = await guest.run({
      command: `head -c ${limit} /dev/zero | tr '\\0' a; echo b; sleep 30`,
      parameters: { PIKACI_INCUS_LOG_MAX_BYTES: `${limit}` },
      timeoutSeconds: 1,
    });
    expect(result).toMatchObject({ timed_out: true });
    const output = `${'a'.repeat(limit)}b\n`;
    expect(log).toBe(
      `${output.slice(0, limit)}${marker(limit)}${output}[pikaci] stopped after 1 s: the time limit\n`,
    );
  });

  test('takes 50 MB/s of output into a log of 64 MiB, and drops the rest', async () => {
    // The same output goes to the log, through a plain cat and nowhere, in turn, in one run: whatever else the machine
    // does, it does to all three. Three rounds fill the log; the others are dropped.
    const [megabytes, rounds] = [30, 7];
    const say = `yes 'a line of output that is about as long as such lines are' | head -c ${megabytes * 1_000_000}`;
    const { result, log } = await guest.run({
      command: `
        exec 3>/artifacts/micros
        timed() { local before=$EPOCHREALTIME; "$1"; local after=$EPOCHREALTIME; echo "$1 $((\${after/./} - \${before/./}))" >&3; }
        logged() { ${say}; }
        copied() { ${say} | cat >/cargo-home/copy; }
        dropped() { ${say} >/dev/null; }
        for round in ${Array.from({ length: rounds }, (_, round) => round).join(' ')}; do
          timed dropped; timed copied; timed logged
        done
        rm /cargo-home/copy`,
    });
    expect(result.status).toBe('passed');
    const times = (await guest.file('/artifacts/micros')).trim().split('\n');
    const middle = (what: string) => {
      const own = times
        .filter((line) => line.startsWith(`${what} `))
        .map((line) => Number(line.split(' ')[1]));
      expect(own).toHaveLength(rounds);
      return own.sort((a, b) => a - b)[(rounds - 1) / 2]!;
    };
    const [logged, copied, dropped] = [middle('logged'), middle('copied'), middle('dropped')];
    // Where the machine is too busy for that rate, what it does with the same output otherwise is the measure.
    expect(logged, times.join('\n')).toBeLessThan(
      Math.max((megabytes / 50) * 1_000_000, 2 * Math.max(copied, dropped)),
    );
    expect(log).toHaveLength(64 * mebibyte + marker(64 * mebibyte).length + endBytes);
  });

  test.for([false, true])(
    'says that the kernel killed a process for want of memory (root: %s)',
    async (asRoot) => {
      const limit = ['config', 'set', '--project', guest.project, guest.name];
      await guest.incus.incusOk([...limit, 'limits.memory=128MiB']);
      const eat = 'cat /dev/zero | tail -c 400000000';
      try {
        const own = await guest.run({ command: 'exec tail -c 400000000 < <(cat /dev/zero)', asRoot });
        expect(own.result).toMatchObject({ status: 'failed', exit_code: 137, oom_killed: true });
        expect(own.result.message).toContain('out of memory');
        await guest.reset();
        const child = await guest.run({ command: `${eat}; exit 1`, asRoot });
        expect(child.result).toMatchObject({ status: 'failed', exit_code: 1, oom_killed: true });
        await guest.reset();
        const hangs = await guest.run({ command: `${eat}; sleep 60`, asRoot, timeoutSeconds: 10 });
        expect(hangs.result).toMatchObject({ exit_code: 124, timed_out: true, oom_killed: true });
        await guest.reset();
        const passes = await guest.run({ command: `${eat}; exit 0`, asRoot });
        expect(passes.result).toMatchObject({ status: 'passed', message: 'test passed' });
        expect(passes.result).not.toHaveProperty('oom_killed');
        await guest.reset();
        // What was killed before is not this command's.
        const later = await guest.run({ command: 'kill -KILL $$', asRoot });
        expect(later.result).toMatchObject({ status: 'failed', exit_code: 137 });
        expect(later.result).not.toHaveProperty('oom_killed');
      } finally {
        await guest.incus.incusOk([...limit, 'limits.memory=']);
      }
    },
  );

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
      const { code, result, log } = await guest.run({
        command: `echo said; until grep -q said /artifacts/guest.log; do sleep 0.1; done
          cat /dev/zero >/artifacts/big; yes | head -c 100000; echo the end; exit 8`,
        asRoot,
      });
      expect(code).toBe(8);
      expect(result).toMatchObject({ exit_code: 8 });
      expect(result.message).toBe('test command exited with 8; guest.log could not be written to its end');
      expect(log).toMatch(/^said\n/);
      expect(log).toContain('\n[pikaci] the log is cut here: it could not be written; its end follows\ny\n');
      expect(log).toMatch(/the end\n$/);
    } finally {
      await guest.shellOk('umount /artifacts');
    }
  });
});
