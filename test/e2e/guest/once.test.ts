import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startBench, type Bench } from '../support/bench.ts';
import { allKinds, Guest } from './guest.ts';

let bench: Bench;
beforeAll(async () => {
  bench = await startBench({ ownIncusd: true });
});
afterAll(() => bench.stop());

/** Leaves a line for each time it ran, and ends a second after it began. */
const counted = 'echo ran >>/cargo-home/runs; sleep 1; exit 7';

describe.for(allKinds)('a %s guest runs its command once', (kind) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.launch(bench.host, kind);
  });
  beforeEach(async () => {
    await guest.reset();
    await guest.shellOk('rm -f /cargo-home/runs');
  });
  afterAll(() => guest.delete());

  const expectOneRun = async () => {
    expect(await guest.shellOk('cat /cargo-home/runs')).toBe('ran\n');
    expect(await guest.result()).toMatchObject({ status: 'failed', exit_code: 7 });
  };
  const running = () =>
    expect
      .poll(() => guest.shell('test -s /cargo-home/runs'), { timeout: 20_000, interval: 20 })
      .toMatchObject({
        code: 0,
      });

  test('when it is started five times at once: all get the same code', async () => {
    const command = `test "$TOKEN" = whole || exit 99; ${counted}`;
    const environment = { TOKEN: 'whole' };
    const starts = await Promise.all(Array.from({ length: 5 }, () => guest.start({ command, environment })));
    expect(await Promise.all(starts.map((start) => guest.ended(start)))).toEqual([7, 7, 7, 7, 7]);
    await expectOneRun();
    expect(await guest.shell('test -e /root/.pikaci-incus-environment')).toMatchObject({ code: 1 });
  });

  test('when it is started again while it runs, and after its end, with whatever else', async () => {
    const first = await guest.start({ command: counted });
    await running();
    const second = await guest.start({ command: 'echo other; exit 9' });
    expect(await guest.ended(second)).toBe(7);
    expect(await guest.ended(first)).toBe(7);
    expect(await guest.ended(await guest.start({ command: 'exit 9', timeoutSeconds: 'bad' }))).toBe(7);
    await expectOneRun();
    expect(await guest.log()).toBe('');
  });

  test.for([0, 20, 50, 90, 150, 400])(
    'when the exec that launched it is killed after %d ms, and the launch is sent again',
    async (milliseconds) => {
      const front = `PIKACI_INCUS_GUEST_COMMAND='${counted}' PIKACI_INCUS_TIMEOUT_SECS=60 PIKACI_INCUS_RUN_AS_ROOT=0 \\
        setsid /run/current-system/sw/bin/pikaci-incus-run & sleep ${milliseconds / 1000}; kill -9 -$!; kill -9 $!`;
      // `kill` fails where the front has not come that far; what counts is what follows.
      await guest.shell(`{ ${front}; } 2>/dev/null; true`);
      expect(await guest.ended(await guest.start({ command: counted }))).toBe(7);
      await expectOneRun();
    },
  );

  test('when incusd is killed at any moment and comes back', async () => {
    for (const milliseconds of [0, 40, 120, 700, 1300]) {
      await guest.reset();
      await guest.shellOk('rm -f /cargo-home/runs');
      // The request may die with the daemon: that it was sent is all we know, as a controller would.
      const sent = guest.start({ command: counted }).catch(() => undefined);
      await delay(milliseconds);
      await bench.host.incusd?.kill9();
      await sent;
      await bench.host.incusd?.restart();
      expect(await guest.ended(await guest.start({ command: counted }))).toBe(7);
      await expectOneRun();
    }
  });

  test('and not again after a restart of the guest, which the result tells', async () => {
    const cut = guest
      .start({ command: 'echo ran >>/cargo-home/runs; sleep 60' })
      .then((id) => guest.ended(id));
    await running();
    await guest.restart();
    await cut.catch(() => undefined);
    // Nothing decided yet: an empty result is none.
    expect(await guest.file('/artifacts/result.json')).toBe('');
    const { code, result } = await guest.run({ command: counted });
    expect(code).toBe(2);
    expect(result).toMatchObject({ status: 'failed', exit_code: 2, timed_out: false });
    expect(result.bootstrap_error).toBe('the guest was restarted before the command ended');
    expect(await guest.shellOk('cat /cargo-home/runs')).toBe('ran\n');
  });

  test('and not again when it has restarted the guest itself', async () => {
    const startOfInit = async () => {
      const seen = await guest.shell("cut -d' ' -f22 /proc/1/stat").catch(() => before);
      return seen.code === 0 ? seen : before;
    };
    const before = await guest.shell("cut -d' ' -f22 /proc/1/stat");
    const reboot = kind === 'systemd' ? 'systemctl reboot' : 'busybox reboot -f';
    const cut = guest.start({
      command: `echo ran >>/cargo-home/runs; sync; ${reboot}; sleep 60`,
      asRoot: true,
    });
    await guest.ended(await cut).catch(() => undefined);
    // While the guest goes down, Incus refuses or loses the launch; a controller sends it again as well.
    await expect
      .poll(() => guest.run({ command: counted }).catch(() => undefined), { timeout: 60_000, interval: 500 })
      .toMatchObject({
        code: 2,
        result: {
          status: 'failed',
          bootstrap_error: expect.stringMatching(/restarted before the command ended$/) as string,
        },
      });
    // Told by the front before the end, or by the next after it: the guest may still be on its way.
    await expect
      .poll(startOfInit, { timeout: 60_000, interval: 200 })
      .not.toMatchObject({ stdout: before.stdout });
    expect(await guest.shellOk('cat /cargo-home/runs')).toBe('ran\n');
  });

  test('and keeps its result over a restart', async () => {
    await guest.run({ command: counted });
    await guest.restart();
    expect(await guest.ended(await guest.start({ command: counted }))).toBe(7);
    await expectOneRun();
  });

  test('and says so when its runner is killed', async () => {
    const start = await guest.start({ command: 'echo ran >>/cargo-home/runs; sleep 60' });
    await running();
    await guest.shellOk(
      'read -r _; read -r pid; kill -9 "$pid"'.replace(/^/, 'exec </var/lib/pikaci-incus-run/claim; '),
    );
    expect(await guest.ended(start)).toBe(2);
    expect((await guest.result()).bootstrap_error).toBe('the runner was killed before the command ended');
  });
});
