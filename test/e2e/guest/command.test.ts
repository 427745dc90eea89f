import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startBench, type Bench } from '../support/bench.ts';
import { allKinds, Guest } from './guest.ts';

let bench: Bench;
beforeAll(async () => {
  bench = await startBench();
});
afterAll(() => bench.stop());

describe.for(allKinds)('the command in a %s guest', (kind) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.launch(bench.host, kind);
  });
  beforeEach(() => guest.reset());
  afterAll(() => guest.delete());

  test('runs in the workspace, with both outputs in the log and its end in the result', async () => {
    const { code, result, log } = await guest.run({ command: 'pwd; echo oops >&2; exit 3' });
    expect(log).toBe('/workspace/snapshot\noops\n');
    expect(code).toBe(3);
    expect(result).toMatchObject({ status: 'failed', exit_code: 3, timed_out: false });
    expect(result.message).toBe('test command exited with 3');
    expect(result).not.toHaveProperty('bootstrap_error');
    expect(Date.parse(result.finished_at)).toBeGreaterThanOrEqual(Date.parse(result.started_at));
  });

  test('passes with 0', async () => {
    const { code, result } = await guest.run({ command: 'true' });
    expect(code).toBe(0);
    expect(result).toMatchObject({ status: 'passed', exit_code: 0, message: 'test passed' });
  });

  test('runs as pikaci, or as root', async () => {
    expect((await guest.run({ command: 'id -u; id -g; echo $HOME $USER' })).log).toBe(
      '1000\n100\n/home/pikaci pikaci\n',
    );
    await guest.reset();
    const asRoot = await guest.run({ command: 'id -u; id -g; echo $HOME $USER', asRoot: true });
    expect(asRoot.log).toBe('0\n0\n/root root\n');
  });

  test('finds the environment of the contract, and may write where it should', async () => {
    const command = `
      echo $CARGO_HOME $CARGO_TARGET_DIR $CARGO_TERM_COLOR $CARGO_INCREMENTAL
      echo $XDG_CACHE_HOME $XDG_STATE_HOME $PGSYSCONFDIR $PGSHAREDIR
      echo $SSL_CERT_FILE $NIX_SSL_CERT_FILE
      env | grep -c PIKACI_INCUS_GUEST_COMMAND
      for dir in /artifacts /cargo-home /cargo-target $HOME $XDG_CACHE_HOME $XDG_STATE_HOME; do
        touch $dir/mine && echo wrote $dir
      done
      case $PATH in *:/usr/bin:*) echo path kept;; esac`;
    expect((await guest.run({ command })).log.split('\n')).toEqual([
      '/cargo-home /cargo-target never 0',
      '/cargo-home/xdg-cache /artifacts/xdg-state /run/current-system/sw /run/current-system/sw/share/postgresql',
      '/etc/ssl/certs/ca-bundle.crt /etc/ssl/certs/ca-bundle.crt',
      '0',
      'wrote /artifacts',
      'wrote /cargo-home',
      'wrote /cargo-target',
      'wrote /home/pikaci',
      'wrote /cargo-home/xdg-cache',
      'wrote /artifacts/xdg-state',
      'path kept',
      '',
    ]);
  });

  test("gets the job's environment to the letter, also where it collides with the runner's own names", async () => {
    const environment = {
      AWKWARD: 'two\nlines, "quotes", \'more\', $HOME `id` \\ * ~ \t end ',
      EMPTY: '',
      BYTES: 'é \u0001 😀',
      LONG: 'x'.repeat(32768),
      status: 's',
      log: 'l',
      environment: 'e',
      job_environment: 'j',
      become: 'b',
      command: 'c',
      SECONDS: 'not a number',
      CARGO_INCREMENTAL: '1',
    };
    const names = Object.keys(environment);
    const { log } = await guest.run({
      command: `for name in ${names.join(' ')}; do printf '%s=%s\\0' $name "\${!name}"; done | base64`,
      environment,
    });
    const seen = Buffer.from(log, 'base64').toString().split('\0').slice(0, -1);
    const expected = Object.entries({ ...environment, SECONDS: '0' });
    expect(seen).toEqual(expected.map(([name, value]) => `${name}=${value}`));
  });

  test("is not moved by the job's environment before it has become the job", async () => {
    const { result, log } = await guest.run({
      command: 'echo ran; echo $PATH',
      asRoot: true,
      environment: {
        // `env` itself is looked up in this PATH.
        PATH: '/nowhere:/usr/bin',
        BASH_ENV: '/nowhere/startup',
        ENV: '/nowhere/startup',
        IFS: '/',
        TZ: 'Antarctica/Troll',
        TMPDIR: '/nowhere',
        POSIXLY_CORRECT: '1',
        SHELLOPTS: 'errexit:noexec',
        'BASH_FUNC_printf%%': '() { echo hijacked; }',
      },
    });
    expect(result).toMatchObject({ status: 'passed' });
    expect(log).toContain('ran\n/run/current-system/sw/bin:/nowhere:/usr/bin\n');
    expect(Math.abs(Date.parse(result.finished_at) - Date.now())).toBeLessThan(60_000);
  });

  test('does not show its environment to others: not in arguments, units or the journal', async () => {
    const operation = await guest.start({
      command: 'sleep 60 & echo $! >/artifacts/up; wait',
      environment: { TOKEN: 'swordfish-4711' },
    });
    await expect
      .poll(() => guest.shell('test -s /artifacts/up'), { timeout: 10_000 })
      .toMatchObject({ code: 0 });
    const looked = await guest.shellOk(`
      cat /proc/[0-9]*/cmdline | tr '\\0' ' '
      find /run/pikaci-incus-run /var/lib/pikaci-incus-run -type f -exec cat {} +
      if [ -d /run/systemd/system ]; then
        systemctl show pikaci-incus-run.service; systemctl cat pikaci-incus-run.service; journalctl --no-pager
      fi
      echo looked`);
    expect(looked).toContain('looked');
    expect(looked).not.toContain('swordfish');
    await guest.shellOk('kill $(</artifacts/up)');
    await guest.ended(operation);
  });

  test('can be 100 KB long', async () => {
    const { result, log } = await guest.run({ command: `# ${'é'.repeat(50_000)}\necho end` });
    expect(log).toBe('end\n');
    expect(result.status).toBe('passed');
  });

  test('keeps every byte of its output: NUL, no newline at the end, what is no UTF-8', async () => {
    await guest.run({ command: `printf 'a\\0b\\xff\\xfe\\n'; printf 'no newline'` });
    expect(await guest.shellOk('base64 /artifacts/guest.log')).toBe(
      `${Buffer.concat([Buffer.from('a\0b'), Buffer.from([0xff, 0xfe]), Buffer.from('\nno newline')]).toString('base64')}\n`,
    );
  });

  test('has its lines whole and in order when several processes write', async () => {
    const { log } = await guest.run({
      command: 'for w in 1 2 3 4; do (for i in $(seq 500); do echo "$w $i $PPID end"; done) & done; wait',
    });
    const lines = log.trimEnd().split('\n');
    expect(lines).toHaveLength(2000);
    for (const writer of ['1', '2', '3', '4']) {
      const own = lines.filter((line) => line.startsWith(`${writer} `));
      expect(own.map((line) => Number(/^\d (\d+) \d+ end$/.exec(line)?.[1]))).toEqual(
        Array.from({ length: 500 }, (_, index) => index + 1),
      );
    }
  });

  test('may open its outputs again by name, and reads nothing', async () => {
    const command = 'echo one > /dev/stdout; echo two > /dev/stderr; cat; echo three > /proc/self/fd/1';
    expect((await guest.run({ command })).log).toBe('one\ntwo\nthree\n');
  });

  test.for([
    ['KILL', 137],
    ['TERM', 143],
    ['SEGV', 139],
    ['XFSZ', 153],
  ] as const)('ends by SIG%s: the code of a shell, and the name in the message', async ([signal, wanted]) => {
    const { code, result } = await guest.run({ command: `kill -${signal} $$` });
    expect(code).toBe(wanted);
    expect(result).toMatchObject({ exit_code: wanted, status: 'failed', timed_out: false });
    expect(result.message).toBe(`test command exited with ${wanted} (SIG${signal})`);
  });

  test('may signal its own process group without meeting the runner', async () => {
    const { result } = await guest.run({
      command: 'trap "exit 5" TERM; kill -TERM 0; sleep 5',
      asRoot: true,
    });
    expect(result).toMatchObject({ exit_code: 5 });
  });

  test("cannot read root's things", async () => {
    const { log } = await guest.run({
      command:
        'cat /var/lib/pikaci-incus-run/claim /run/pikaci-incus-run/* /proc/1/environ; kill -9 1; echo $?',
    });
    expect(log.match(/[Pp]ermission denied|not permitted/g)?.length).toBeGreaterThanOrEqual(3);
  });

  test('is waited for without polling', async () => {
    // How often a process went to sleep, as the kernel counts.
    const script = `
      naps() { while read -r name count; do [ $name != voluntary_ctxt_switches: ] || echo $count; done </proc/$1/status; }
      export PIKACI_INCUS_TIMEOUT_SECS=60 PIKACI_INCUS_RUN_AS_ROOT=0
      export PIKACI_INCUS_GUEST_COMMAND='echo began; until [ -e /tmp/told ]; do sleep 0.1; done; exit 6'
      rm -rf /var/lib/pikaci-incus-run /tmp/told
      /run/current-system/sw/bin/pikaci-incus-run & front=$!
      until [ -s /artifacts/guest.log ]; do sleep 0.1; done
      sleep 1; before=$(naps $front); sleep 3; after=$(naps $front)
      touch /tmp/told; wait $front; echo $? $((after - before))`;
    expect((await guest.shellOk(script)).trim()).toBe('6 0');
  });
});

describe('exit codes', () => {
  const codes = Array.from({ length: 256 }, (_, code) => code);
  const sample = codes.filter((code) => code < 4 || code > 251 || (code >= 124 && code <= 130));
  test.for([
    ['busybox', 'root', codes],
    ['busybox', 'pikaci', sample],
    ['systemd', 'root', sample],
    ['systemd', 'pikaci', sample],
  ] as const)('come back as they are from a %s guest, to %s', async ([kind, user, sample]) => {
    await using guest = await Guest.launch(bench.host, kind);
    const script = `
      export PIKACI_INCUS_TIMEOUT_SECS=60 PIKACI_INCUS_RUN_AS_ROOT=${user === 'root' ? 1 : 0}
      for code in ${sample.join(' ')}; do
        rm -rf /var/lib/pikaci-incus-run
        PIKACI_INCUS_GUEST_COMMAND="exit $code" /run/current-system/sw/bin/pikaci-incus-run
        front=$?
        [[ $(</artifacts/result.json) =~ \\"exit_code\\":([0-9]+) ]]
        echo $code $front \${BASH_REMATCH[1]}
      done`;
    expect((await guest.shellOk(script)).trim().split('\n')).toEqual(
      sample.map((code) => `${code} ${code} ${code}`),
    );
  });
});
