import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { addSource, startBench, type Bench } from '../support/bench.ts';
import { allKinds, Guest, type Request } from './guest.ts';

let bench: Bench;
const sources: Record<string, string> = {};
beforeAll(async () => {
  bench = await startBench();
  const payload = (guestInterface: string) => ({
    'pikaci-payload.json': `{"schema_version": 1, "guest_interface": ${guestInterface}, "lanes": []}`,
  });
  sources['snapshot'] = await addSource(bench.host, 'snapshot', { file: 'content\n' });
  sources['right'] = await addSource(bench.host, 'right', payload('1'));
  sources['wrong'] = await addSource(bench.host, 'wrong', payload('2'));
  sources['mute'] = await addSource(bench.host, 'mute', { 'pikaci-payload.json': '{}' });
});
afterAll(() => bench.stop());

describe.for(allKinds)('a command that cannot be started in a %s guest', (kind) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.launch(bench.host, kind, { '/workspace/snapshot': sources['snapshot']! });
  });
  beforeEach(() => guest.reset());
  afterAll(() => guest.delete());

  const expectRefused = async (request: Request, reason: string | RegExp) => {
    const { code, result, log } = await guest.run({ command: 'echo it ran', ...request });
    expect(code).toBe(2);
    expect(result).toMatchObject({ status: 'failed', exit_code: 2, timed_out: false });
    expect(result.bootstrap_error).toMatch(reason);
    expect(log).toContain(`[pikaci] bootstrap error: `);
    expect(log).not.toContain('it ran');
  };

  test.for<[string, Request, string]>([
    ['no command', { command: '' }, 'PIKACI_INCUS_GUEST_COMMAND is missing or empty'],
    ['a timeout of 0', { timeoutSeconds: 0 }, 'PIKACI_INCUS_TIMEOUT_SECS must be'],
    ['an empty timeout', { timeoutSeconds: '' }, 'PIKACI_INCUS_TIMEOUT_SECS must be'],
    ['a timeout in minutes', { timeoutSeconds: '5m' }, 'not "5m"'],
    ['a timeout with code in it', { timeoutSeconds: 'a[$(touch /pwned)]' }, 'not "a[$(touch /pwned)]"'],
    ['neither root nor not', { asRoot: 'yes' }, 'PIKACI_INCUS_RUN_AS_ROOT must be 0 or 1, not "yes"'],
    ['bytes that are no text', { asRoot: '"\\\n\u00e9' }, 'must be 0 or 1, not ""\\???"'],
    [
      'a log limit that is none',
      { parameters: { PIKACI_INCUS_LOG_MAX_BYTES: 'all' } },
      'PIKACI_INCUS_LOG_MAX_BYTES must be',
    ],
  ])('is refused with the reason: %s', async ([, request, reason]) => {
    const { code, result, log } = await guest.run({ command: 'echo it ran', ...request });
    expect(code).toBe(2);
    expect(result).toMatchObject({ status: 'failed', exit_code: 2, timed_out: false });
    expect(result.bootstrap_error).toContain(reason);
    expect(log).toContain('[pikaci] bootstrap error: ');
    expect(log).not.toContain('it ran');
    expect(await guest.shell('test -e /pwned')).toMatchObject({ code: 1 });
  });

  test('is refused when a variable is missing altogether', async () => {
    await guest.shell('/run/current-system/sw/bin/pikaci-incus-run');
    expect((await guest.result()).bootstrap_error).toBe('PIKACI_INCUS_GUEST_COMMAND is missing or empty');
  });

  const file = '/root/.pikaci-incus-environment';
  const parameters = { PIKACI_INCUS_ENVIRONMENT_FILE: file };

  test('is refused without its variables, where their file is not there or stays half a file', async () => {
    await expectRefused({ parameters }, /^PIKACI_INCUS_ENVIRONMENT_FILE: .* is not there$/);
    await guest.reset();
    await guest.shellOk(`printf 'A=1\\0B=' >${file}`);
    await expectRefused({ parameters }, /^PIKACI_INCUS_ENVIRONMENT_FILE: .* is not whole/);
    expect(await guest.shell(`test -e ${file}`)).toMatchObject({ code: 1 });
  });

  test('waits for a file that a second launch is writing again', async () => {
    await guest.shellOk(`printf 'A=half\\0' >${file}`);
    const launched = await guest.start({ command: 'echo "$A"; exit 3', parameters });
    await guest.shellOk(`sleep 0.5; printf 'A=whole\\0\\0' >${file}`);
    expect(await guest.ended(launched)).toBe(3);
    expect(await guest.log()).toBe('whole\n');
  });

  test('is refused when an expected mount is only a directory', async () => {
    const mounts = '/workspace/snapshot:/staged/linux-rust/workspace-deps';
    await expectRefused(
      { parameters: { PIKACI_INCUS_EXPECT_MOUNTS: mounts } },
      /^\/staged\/linux-rust\/workspace-deps is not a mount point$/,
    );
  });

  test('is refused when an expected mount is not there, or not a path', async () => {
    await expectRefused(
      { parameters: { PIKACI_INCUS_EXPECT_MOUNTS: '/not here' } },
      /^\/not here is not a mount/,
    );
    await guest.reset();
    await expectRefused({ parameters: { PIKACI_INCUS_EXPECT_MOUNTS: 'workspace' } }, /not an absolute path/);
  });

  test('is started when the expected mounts are there, with blanks in their names too', async () => {
    await guest.shellOk(
      'mkdir -p "/mnt/a b\\\\c"; mountpoint -q "/mnt/a b\\\\c" || mount -t tmpfs tmpfs "/mnt/a b\\\\c"',
    );
    const { result, log } = await guest.run({
      command: 'cat file; echo new >file',
      parameters: { PIKACI_INCUS_EXPECT_MOUNTS: '/workspace/snapshot/:/mnt/a b\\c' },
    });
    expect(log).toMatch(/^content\n.*Read-only file system\n$/);
    expect(result.status).toBe('failed');
    expect(result).not.toHaveProperty('bootstrap_error');
  });

  test('is refused in a guest without the user, but root needs none', async () => {
    await guest.shellOk('sed -i s/^pikaci:/nobody-else:/ /etc/passwd');
    await expectRefused({}, /^this guest has no user pikaci$/);
    await guest.reset();
    expect((await guest.run({ command: 'echo fine', asRoot: true })).log).toBe('fine\n');
    await guest.shellOk('sed -i s/^nobody-else:/pikaci:/ /etc/passwd');
  });

  test('fails the exec, which then speaks, where /artifacts cannot be written', async () => {
    await guest.shellOk('mount -t tmpfs -o ro tmpfs /artifacts');
    const front = await guest.shell(
      'PIKACI_INCUS_GUEST_COMMAND=true PIKACI_INCUS_TIMEOUT_SECS=9 PIKACI_INCUS_RUN_AS_ROOT=0 ' +
        '/run/current-system/sw/bin/pikaci-incus-run',
    );
    await guest.shellOk('umount /artifacts');
    expect(front.code).toBe(2);
    expect(front.stderr).toContain('cannot write /artifacts/result.json');
    // The same launch, sent again, delivers it late.
    expect(await guest.ended(await guest.start({ command: 'true' }))).toBe(2);
    expect((await guest.result()).bootstrap_error).toMatch(
      /^cannot prepare \/artifacts: Read-only file system/,
    );
  });
});

describe.for(allKinds)('the staged payloads in a %s guest', (kind) => {
  test.for<[string, string, string | undefined]>([
    ['right', 'workspace-build', undefined],
    ['wrong', 'workspace-build', 'workspace-build needs guest interface 2, this image provides 1'],
    ['wrong', 'workspace-deps', 'workspace-deps needs guest interface 2, this image provides 1'],
    ['mute', 'workspace-build', 'does not say which guest_interface the payload needs'],
  ])('a payload made for the %s interface in %s', async ([source, payload, refusal]) => {
    await using guest = await Guest.launch(bench.host, kind, {
      [`/staged/linux-rust/${payload}`]: sources[source]!,
    });
    const { result, log } = await guest.run({ command: 'echo ran' });
    if (refusal === undefined) {
      expect(result.status).toBe('passed');
      expect(log).toBe('ran\n');
    } else {
      expect(result.bootstrap_error).toContain(refusal);
      expect(log).not.toContain('ran\n');
    }
  });
});
