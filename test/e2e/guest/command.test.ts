import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startBench, type Bench } from '../support/bench.ts';
import { allKinds, Guest } from './guest.ts';

const nul = Buffer.from([0]);
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

  test('may choose another home and PATH, and has what the host gives every exec', async () => {
    const { log } = await guest.run({
      command: 'echo "$HOME $USER $LANG"; echo ~; set -e; exit 3',
      environment: { HOME: '/cargo-home', USER: 'somebody' },
    });
    expect(log).toBe('/cargo-home somebody C.UTF-8\n/cargo-home\n');
    expect(await guest.result()).toMatchObject({ exit_code: 3 });
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
      NO_TEXT: Buffer.from([0xff, 0xfe, 0x01, 0xc3, 0x28, 0x80, 0x41, 0x0a]),
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
    const expected = Object.entries({ ...environment, SECONDS: '0' });
    const pairs = expected.flatMap(([name, value]) => [Buffer.from(`${name}=`), Buffer.from(value), nul]);
    expect(Buffer.from(log, 'base64').toString('latin1')).toBe(Buffer.concat(pairs).toString('latin1'));
  });

  test.for([false, true])(
    'has its environment to itself: no process of root has any of it, before, meanwhile or after (root: %s)',
    async (asRoot) => {
      // Preloaded, a library acts in every process that finds it in its environment; bash's startup file in every bash.
      await guest.shellOk(
        `printf '%s' 'echo "$BASHPID $(id -u) $(tr "\\\\0" " " </proc/$BASHPID/cmdline)" >>/tmp/started' >/tmp/startup; : >/tmp/started; chmod 666 /tmp/started`,
      );
      const { result, log } = await guest.run({
        command: 'echo ran; echo "$PATH"; echo "$TMOUT $LOCALE_ARCHIVE $EXECIGNORE"; sleep 1.5; exit 5',
        asRoot,
        environment: {
          PATH: '/nowhere:/usr/bin',
          BASH_ENV: '/tmp/startup',
          ENV: '/tmp/startup',
          PROMPT_COMMAND: 'echo hijacked',
          IFS: '/',
          TZ: 'Antarctica/Troll',
          TMOUT: '1',
          TMPDIR: '/nowhere',
          LOCALE_ARCHIVE: '/nowhere/archive',
          LC_ALL: 'xx_XX.UTF-8',
          EXECIGNORE: '*',
          GLOBIGNORE: '*',
          POSIXLY_CORRECT: '1',
          FUNCNEST: '1',
          BASH_COMPAT: '3.2',
          'BASH_FUNC_printf%%': '() { echo hijacked; }',
        },
      });
      expect(log).toContain('ran\n/run/current-system/sw/bin:/nowhere:/usr/bin\n1 /nowhere/archive *\n');
      expect(log).not.toContain('hijacked');
      expect(result).toMatchObject({ exit_code: 5, timed_out: false });
      expect(result).not.toHaveProperty('bootstrap_error');
      expect(Math.abs(Date.parse(result.finished_at) - Date.now())).toBeLessThan(60_000);
      expect(Date.parse(result.finished_at) - Date.parse(result.started_at)).toBeGreaterThan(1_500);
      const started = (await guest.shellOk('cat /tmp/started')).trim().split('\n').filter(Boolean);
      for (const line of started) {
        expect(line).toMatch(asRoot ? /^\d+ 0 \S+bash --noprofile --norc -lc / : /^\d+ 1000 /);
      }
    },
  );

  test('runs while no process of root carries a variable of it', async () => {
    const operation = await guest.start({
      command: 'echo up >/artifacts/up; until [ -e /tmp/go ]; do sleep 0.1; done; exit 7',
      environment: { TOKEN: 'swordfish-0815', LD_DEBUG_OUTPUT: '/tmp/loader', LD_DEBUG: 'files' },
    });
    await expect
      .poll(() => guest.shell('test -s /artifacts/up'), { timeout: 10_000 })
      .toMatchObject({ code: 0 });
    const holders = await guest.shellOk(
      'for p in $(grep -a -l swordfish-0815 /proc/[0-9]*/environ); do p=${p%/*}; while read -r k v _; do [ "$k" != Uid: ] || echo "$v"; done <$p/status; done',
    );
    expect(new Set(holders.trim().split('\n'))).toEqual(new Set(['1000']));
    expect(
      await guest.shellOk(
        'find /root /run /var/lib -name "*environment*" -o -name "variables*" | grep -v systemd || true',
      ),
    ).toBe('');
    await guest.shellOk('touch /tmp/go');
    expect(await guest.ended(operation)).toBe(7);
    // The dynamic loader writes a file for each program that it starts with that variable: as the user of that program.
    const owners = await guest.shellOk(
      'shopt -s nullglob; for f in /tmp/loader.*; do stat -c %u "$f"; done; rm -f /tmp/loader.* /tmp/go',
    );
    for (const owner of owners.trim().split('\n').filter(Boolean)) expect(owner).toBe('1000');
  });

  test('begins with signals as they are by default: none ignored, none blocked', async () => {
    const { log } = await guest.run({
      command:
        "grep -E 'Sig(Blk|Ign)' /proc/self/status; while yes; do :; done | head -n 1; kill -INT $$; echo survived",
      timeoutSeconds: 20,
    });
    expect(log).toBe('SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\ny\n');
    expect(await guest.result()).toMatchObject({ exit_code: 130, timed_out: false });
  });

  test('begins with nothing open but its three streams', async () => {
    const { log } = await guest.run({
      command: 'for fd in /proc/$$/fd/*; do [ -e "$fd" ] && echo "${fd##*/}"; done',
      environment: { A: 'b' },
    });
    expect(log).toBe('0\n1\n2\n');
  });

  test("ends with its own exit code, whatever a login shell's files are in the image", async () => {
    const homes = ['/home/pikaci', '/root'];
    const skeleton =
      'if [ "$SHLVL" = 1 ]; then [ -x /usr/bin/clear_console ] && /usr/bin/clear_console -q; fi';
    const hostile = 'echo logged out; exit 9';
    const commands: [command: string, code: number][] = [
      ['set -e; true; exit 0', 0],
      ['set -e; exit 3', 3],
      ['shopt -q login_shell && exit 4', 4],
      ['true', 0],
      ['set -e; false; true', 1],
      ['trap "exit 6" EXIT; exit 5', 6],
      ['f() { exit 8; }; f', 8],
      ['exec bash -c "exit 10"', 10],
      ['kill -TERM $$', 143],
    ];
    const ends = async (file: string, asRoot: boolean, some: typeof commands) => {
      for (const [command, code] of some) {
        await guest.reset();
        await guest.shellOk(
          `for f in ${homes.map((home) => `${home}/.bash_logout ${home}/.bash_profile ${home}/.bashrc`).join(' ')} /etc/bash.bash_logout; do printf '%s\\n' '${file}' >$f; done`,
        );
        const { result, log } = await guest.run({ command, asRoot });
        expect(log).not.toContain('logged out');
        expect([command, result.exit_code]).toEqual([command, code]);
      }
    };
    await ends(hostile, false, commands);
    await ends(hostile, true, commands.slice(0, 2));
    await guest.reset();
    await guest.shellOk(`echo '${hostile}' >/cargo-home/.bash_logout`);
    const elsewhere = await guest.run({ command: 'exit 3', environment: { HOME: '/cargo-home' } });
    expect(elsewhere.result).toMatchObject({ exit_code: 3 });
    await ends(skeleton, false, commands.slice(0, 2));
  }, 120_000);

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
