import { open } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FarRun, patience, pieces } from '../support/far-run.ts';

/*
 * `cijob run` as a process that is asked to end, whose outputs fail, or that is killed. It cleans up first, whatever
 * becomes of its outputs; and what it cannot clean up, the next one does.
 */

let run: FarRun;
beforeEach(async () => {
  run = await FarRun.prepare();
});
afterEach(async () => {
  await run[Symbol.asyncDispose]();
});

describe('asked to end, it cleans up first', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
    'by %s, and exits with 130',
    async (signal) => {
      const { child, ended, says, said } = await run.start();
      await says('stdout', 'here');
      child.kill(signal);
      expect(await ended).toEqual({ code: 130, signal: null });
      expect(said.stderr).toContain(`${signal}: cancelling`);
      expect(run.host.incus.names()).toEqual([]);
    },
  );

  test('by a terminal that is closed: two SIGHUP, and outputs that are gone', async () => {
    const { child, ended, says } = await run.start();
    await says('stdout', 'here');
    child.stdout?.destroy();
    child.stderr?.destroy();
    child.kill('SIGHUP');
    child.kill('SIGHUP');
    expect((await ended).code).toBe(130);
    expect(run.host.incus.names()).toEqual([]);
  });

  test('by a service manager that asks again and again', async () => {
    const { child, ended, says } = await run.start();
    await says('stdout', 'here');
    const asks = setInterval(() => child.kill('SIGTERM'), 20);
    expect((await ended).code).toBe(130);
    clearInterval(asks);
    expect(run.host.incus.names()).toEqual([]);
  });

  test('but not for whoever presses Ctrl-C again and again', async () => {
    run.host.incus.faults.on({ method: 'PUT' }, { kind: 'hang' }, 10);
    const { child, ended, says, said } = await run.start();
    await says('stdout', 'here');
    const presses = setInterval(() => child.kill('SIGINT'), 200);
    expect((await ended).code).toBe(130);
    clearInterval(presses);
    expect(said.stderr).toMatch(
      /^leaving at once: instances stay behind; the next `cijob run` .* removes it$/m,
    );
  });

  test('by a reader that has gone, and exits as by SIGPIPE', async () => {
    run.script = { runMs: Infinity, log: pieces(600, 50, 'line\n') };
    const { child, ended, says, said } = await run.start();
    await says('stdout', 'line');
    child.stdout?.destroy();
    expect(await ended).toEqual({ code: 141, signal: null });
    expect(said.stderr).toContain('Cancelled');
    expect(said.stderr).not.toMatch(/^ +at /m);
    expect(run.host.incus.names()).toEqual([]);
  });

  test('by a full disk, and exits with 74', async () => {
    const full = await open('/dev/full', 'w');
    const { ended, said } = await run.start({ stdout: full.fd });
    expect(await ended).toEqual({ code: 74, signal: null });
    await full.close();
    expect(said.stderr.match(/standard output cannot be written: .*ENOSPC/g)).toHaveLength(1);
    expect(run.host.incus.names()).toEqual([]);
  });

  test('although nobody takes what it prints', async () => {
    // More than a pipe holds and than is kept for a slow reader.
    run.script = { runMs: Infinity, log: pieces(200, 10, `${'long '.repeat(20_000)}\n`) };
    const { child, ended, says } = await run.start();
    await says('stdout', 'long');
    child.stdout?.pause();
    child.kill('SIGINT');
    await expect.poll(() => run.host.incus.names(), patience).toEqual([]);
    expect((await ended).code).toBe(130);
  });
});

test('without standard error it runs its job to the end', async () => {
  run.script = { runMs: 500, log: 'here\n', exitCode: 3 };
  const { child, ended, said } = await run.start();
  child.stderr?.destroy();
  expect((await ended).code).toBe(3);
  expect(said.stdout).toBe('here\n');
});

describe('what a run left that was killed', () => {
  test('is removed by the next one on that host, which says so', async () => {
    const killed = await run.start();
    await killed.says('stdout', 'here');
    killed.child.kill('SIGKILL');
    expect(await killed.ended).toEqual({ code: null, signal: 'SIGKILL' });
    const [left] = run.host.incus.names();
    run.script = { runMs: 1 };
    const next = await run.start({ flags: ['--quiet'] });
    expect(await next.ended).toEqual({ code: 0, signal: null });
    expect(next.said.stderr).toBe(
      `instance ${left ?? ''} on host far was left behind by a \`cijob run\` that is dead (CiJob default/build): removed\n`,
    );
    expect(run.host.incus.names()).toEqual([]);
  });

  test('does not hold up a run for ever if it cannot be removed: named, and left to the next', async () => {
    const killed = await run.start();
    await killed.says('stdout', 'here');
    killed.child.kill('SIGKILL');
    await killed.ended;
    const [left = ''] = run.host.incus.names();
    const { timings } = run.host.incus.daemon.parts;
    const usual = timings.stop;
    timings.stop = Infinity;
    const job = Promise.withResolvers<undefined>();
    run.script = { until: job.promise };
    const next = await run.start({ flags: ['--quiet'] });
    await expect.poll(() => run.host.incus.instance(left)?.busy, patience).toBe('stop');
    timings.stop = usual;
    job.resolve(undefined);
    expect(await next.ended).toEqual({ code: 0, signal: null });
    expect(next.said.stderr).toContain(`instance ${left} on host far was left behind`);
    expect(next.said.stderr).toContain('is not removed yet; the next `cijob run` on that host and project');
    expect(run.host.incus.names()).toEqual([left]);
  }, 90_000);

  test('is told from what a live one has, which keeps it', async () => {
    const first = await run.start();
    await first.says('stdout', 'here');
    const held = run.host.incus.names();
    run.script = { runMs: 1 };
    const second = await run.start();
    expect((await second.ended).code).toBe(0);
    expect(second.said.stderr).not.toContain('left behind');
    expect(run.host.incus.names()).toEqual(held);
    first.child.kill('SIGINT');
    expect((await first.ended).code).toBe(130);
    expect(run.host.incus.names()).toEqual([]);
  });

  test('is not touched by `cijob plan`', async () => {
    const killed = await run.start();
    await killed.says('stdout', 'here');
    killed.child.kill('SIGKILL');
    await killed.ended;
    const left = run.host.incus.names();
    const plan = await run.start({ subcommand: 'plan' });
    expect((await plan.ended).code).toBe(0);
    expect(run.host.incus.names()).toEqual(left);
  });
});
